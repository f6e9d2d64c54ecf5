"""Neighbours of pictures that are in no corpus, asked of an index while a model runs.

Only the image rules apply (Re-ViLM §3.3; there is no caption to leak): a hit that shows the query's own picture, by
equal bytes as fetched or as stored, or by one perceptual hash and a cosine of at least 0.98, is removed and counted. In
a prompt of several pictures the rules hold against all of them, as in a sample of five pairs; of the others an equal
perceptual hash is enough, for a cosine with them is not at hand.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stages.filter import SAME_IMAGE_COSINE
from stages.index import QueryEncoder, Retriever

SPARE = 8  # candidates beyond those wanted, for what may have to be removed


class Stored(Protocol):
    """A picture as a crawl stores it (stages.download.stored_picture)."""

    @property
    def jpeg(self) -> bytes: ...
    @property
    def sha256(self) -> str:
        """Of the bytes as fetched."""

    @property
    def stored_sha256(self) -> str: ...
    @property
    def phash(self) -> int: ...


@dataclass(frozen=True)
class Neighbor:
    """pair: a row of the corpus' metadata (PAIRS)."""

    pair: dict[str, Any]
    similarity: float  # cosine, −1…1

    @property
    def caption(self) -> str:
        return str(self.pair["caption"])


@dataclass(frozen=True)
class Neighbors:
    """Nearest first; fewer than wanted where the probed lists hold no more."""

    kept: tuple[Neighbor, ...]
    removed: int  # hits that show a picture of the prompt, ranked before the last that is kept


NOTHING = Neighbors((), 0)


class LiveIndex:
    """A finished index and the encoder of its vectors. Raises InputError where one of them cannot be opened."""

    def __init__(self, root: str) -> None:
        self.retriever = Retriever(root, direction="image")
        self._encoder = QueryEncoder.of(self.retriever.database)

    @property
    def towers(self) -> Any:
        """The encoder, as stages.embed opens it."""
        return self._encoder.towers

    def neighbors(
        self,
        pictures: Sequence[Stored],
        keys: Sequence[Any],
        wanted: int,
        beside: Sequence[Sequence[Stored]] | None = None,
    ) -> list[Neighbors]:
        """keys: of `embed`. beside: of every picture, the others of its prompt."""
        beside = beside or [()] * len(pictures)
        return [self._of_one(*asked, wanted) for asked in zip(pictures, keys, beside, strict=True)]

    def embed(self, jpegs: Sequence[bytes]) -> Any:
        """(n, width) float32 of norm 1, as the corpus' own pictures are embedded."""
        return self._encoder.stored(jpegs)

    def _of_one(self, picture: Stored, key: Any, beside: Sequence[Stored], wanted: int) -> Neighbors:
        asked = wanted + SPARE
        while True:
            ids, similarity = self.retriever.search(key[None], asked)
            there = ids[0] >= 0
            found = self._nearest(zip(ids[0][there], similarity[0][there], strict=True), picture, beside, wanted)
            if len(found.kept) == wanted or int(there.sum()) < asked:
                return found
            asked *= 2

    def _nearest(
        self, hits: Iterable[tuple[int, float]], picture: Stored, beside: Sequence[Stored], wanted: int
    ) -> Neighbors:
        """hits: ids and cosines, nearest first; no more of their rows are read than are needed."""
        kept: list[Neighbor] = []
        removed = 0
        for row_id, cosine in hits:
            if len(kept) == wanted:
                break
            (pair,) = self.retriever.pairs([row_id])
            hit = Neighbor(pair, float(cosine))
            if _same_image(hit, picture) or any(_may_be(hit, each) for each in beside):
                removed += 1
            else:
                kept.append(hit)
        return Neighbors(tuple(kept), removed)


def _same_image(hit: Neighbor, picture: Stored) -> bool:
    return _same_bytes(hit, picture) or (hit.pair["phash"] == picture.phash and hit.similarity >= SAME_IMAGE_COSINE)


def _may_be(hit: Neighbor, picture: Stored) -> bool:
    return _same_bytes(hit, picture) or bool(hit.pair["phash"] == picture.phash)


def _same_bytes(hit: Neighbor, picture: Stored) -> bool:
    pair = hit.pair
    return bool(pair["sha256"] == picture.sha256 or pair["stored_sha256"] == picture.stored_sha256)
