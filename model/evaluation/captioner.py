"""Captions for pictures of any kind, with neighbours from a live index or without.

A picture passes what every fetched picture passes (judged, shrunk, stored as a JPEG), so that the model and the index
see it as they saw those of the corpus.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from model.evaluation.answerer import Answerer, Decoding
from model.evaluation.given import Given
from model.evaluation.live_index import LiveIndex, Neighbor, Neighbors, Stored
from model.evaluation.sight import Seen, Sight
from model.sequence import Chunk
from stages.download import DownloadRecipe, stored_picture

NOTHING = Neighbors((), 0)


@dataclass(frozen=True, kw_only=True)
class Caption:
    """Of one picture: a caption, or why there is none."""

    picture: str  # its file or url
    caption: str | None = None
    error: str = ""
    neighbors: tuple[Neighbor, ...] = ()
    removed: int = 0  # hits that show the same picture
    jpeg: bytes | None = None  # as stored
    seconds: Mapping[str, float] = field(default_factory=dict)  # its share of its batch's: embed, retrieve, generate


@dataclass(frozen=True)
class Captioner:
    """index: None: the model is shown no neighbours."""

    answerer: Answerer
    index: LiveIndex | None
    decoding: Decoding = Decoding()

    @classmethod
    def open(cls, checkpoint: str, index: str | None, decoding: Decoding) -> "Captioner":
        """checkpoint: as Answerer opens it. index: the root of a run whose index is finished; of a model that reads no
        neighbours it is not opened.

        Raises InputError where one of the two cannot be opened.
        """
        answerer = Answerer.open(checkpoint)
        return cls(answerer, LiveIndex(index) if index and answerer.neighbors else None, decoding)

    def captions(self, pictures: Iterator[Given], batch_size: int = 16) -> Iterator[Caption]:
        """In order, one of every picture."""
        while batch := list(islice(pictures, batch_size)):
            yield from self._batch(batch)

    def _batch(self, given: Sequence[Given]) -> list[Caption]:
        prepared = [_prepared(each) for each in given]
        stored = [each for each in prepared if not isinstance(each, str)]
        clock = _Clock(len(stored))
        with clock.running("embed"):
            seen = Sight(self.answerer, self.index).see([each.jpeg for each in stored])
        shown = [NOTHING] * len(stored)
        if self.index and stored:
            with clock.running("retrieve"):
                shown = self.index.neighbors(stored, [each.key for each in seen], self.answerer.neighbors)
        with clock.running("generate"):
            said = iter(self._say(seen, shown) if stored else [])
        neighbors = iter(shown)
        return [
            Caption(picture=each.name, error=made)
            if isinstance(made, str)
            else _caption(each.name, next(said), next(neighbors), made.jpeg, clock.seconds)
            for each, made in zip(given, prepared, strict=True)
        ]

    def _say(self, seen: Sequence[Seen], shown: Sequence[Neighbors]) -> list[str]:
        prompts = [
            [Chunk(image=each.image, neighbors=[n.caption for n in neighbors.kept], ends=False)]
            for each, neighbors in zip(seen, shown, strict=True)
        ]
        return self.answerer.say(prompts, self.decoding)


def _prepared(given: Given) -> Stored | str:
    """As the crawl would store it, or why it would not."""
    if given.body is None:
        return given.fault
    refused: list[str] = []
    made = stored_picture(given.body, DownloadRecipe(), lambda why, detail: refused.append(f"{why}: {detail}"))
    return made or refused[0]


def _caption(name: str, said: str, shown: Neighbors, jpeg: bytes, seconds: Mapping[str, float]) -> Caption:
    return Caption(picture=name, caption=said, neighbors=shown.kept, removed=shown.removed, jpeg=jpeg, seconds=seconds)


@dataclass
class _Clock:
    """Seconds a picture, of a batch of so many."""

    pictures: int
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def running(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[what] = (time.perf_counter() - started) / max(self.pictures, 1)
