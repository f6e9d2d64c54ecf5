"""Pairs of an index that are nearest to texts or pictures, as records for a program."""

from collections.abc import Mapping, Sequence
from typing import Any

from model.evaluation.captioner import as_stored
from model.evaluation.given import Given
from model.evaluation.live_index import LiveIndex
from model.serving.errors import Fault, RequestError
from model.serving.wire import Record
from pipeline.reasons import Reason
from stages.index import QueryEncoder, Retriever

_OF_ANOTHER_KIND = {Reason.NOT_AN_IMAGE, Reason.UNSUPPORTED_FORMAT, Reason.ANIMATED}


class Search:
    """Raises InputError where the index, or the model of its vectors, cannot be opened."""

    def __init__(self, root: str, live: LiveIndex | None) -> None:
        """live: the same index, where a model reads it already: what it has opened is shared."""
        self._by_text = Retriever(root, direction="text")
        self._by_picture = live.retriever if live else Retriever(root, direction="image")
        self._encoder = QueryEncoder(live.towers) if live else QueryEncoder.of(self._by_text.database)

    @property
    def pairs(self) -> int:
        return self._by_text.index.rows

    def texts(self, texts: Sequence[str], k: int) -> list[Record | RequestError]:
        return [*_hits(self._by_text, self._encoder.texts(texts), k)]

    def pictures(self, bodies: Sequence[bytes], k: int) -> list[Record | RequestError]:
        """bodies: pictures as they come; what a crawl would not store is refused."""
        fitted = [_fitted(body) for body in bodies]
        jpegs = [each for each in fitted if isinstance(each, bytes)]
        found = iter(_hits(self._by_picture, self._encoder.stored(jpegs), k) if jpegs else [])
        return [next(found) if isinstance(each, bytes) else each for each in fitted]

    def picture(self, row_id: int) -> bytes | RequestError:
        """The JPEG of a pair that may still be found."""
        database = self._by_text.database
        if not 0 <= row_id < database.size or (database.alive is not None and not database.alive[row_id]):
            return RequestError(Fault.NOT_FOUND, f"no pair of the index has the row id {row_id}")
        return database.picture(database.pair(row_id))


def hit(pair: Mapping[str, Any], similarity: float) -> Record:
    """pair: a row of PAIRS. picture: where this service shows it."""
    told = {name: pair[name] for name in ("pair_id", "caption", "url", "row_id")}
    return told | {"similarity": similarity, "picture": f"/picture/{pair['row_id']}"}


def unfit(error: str) -> RequestError:
    """error: why a crawl would not store a picture, as of Caption.error."""
    reason = error.partition(": ")[0]
    fault = Fault.NOT_A_PICTURE if reason in _OF_ANOTHER_KIND else Fault.BAD_PICTURE
    taken = "; taken are JPEG, PNG, WEBP, BMP and GIF of one frame, sent as the file's bytes"
    return RequestError(fault, f"{error}{taken if fault == Fault.NOT_A_PICTURE else ''}")


def _fitted(body: bytes) -> bytes | RequestError:
    """As a crawl would store it."""
    stored = as_stored(Given("", body))
    return unfit(stored) if isinstance(stored, str) else stored.jpeg


def _hits(retriever: Retriever, vectors: Any, k: int) -> list[Record]:
    """vectors (Q, D) → of every query its pairs, best first; fewer than k where the probed lists hold fewer."""
    found = []
    for ids, similarity in zip(*retriever.search(vectors, k), strict=True):
        pairs = retriever.pairs(ids[ids >= 0])
        found.append({"hits": [hit(pair, float(cosine)) for pair, cosine in zip(pairs, similarity, strict=False)]})
    return found
