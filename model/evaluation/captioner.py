"""Captions for pictures of any kind, with neighbours from a live index or without.

A picture passes what every fetched picture passes (judged, shrunk, stored as a JPEG), so that the model and the index
see it as they saw those of the corpus.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from torch import Tensor

from model.evaluation.answerer import Answerer, Decoding
from model.evaluation.fitting import neighbors_shown
from model.evaluation.given import Given
from model.evaluation.live_index import NOTHING, LiveIndex, Neighbor, Neighbors, Stored
from model.evaluation.sight import Seen, Sight
from model.sequence import Chunk
from pipeline.reasons import Reason
from stages.download import DownloadRecipe, stored_picture

BATCH = 16  # pictures that are captioned together


@dataclass(frozen=True, kw_only=True)
class Caption:
    """Of one picture: a caption, or why there is none."""

    picture: str  # its name
    caption: str | None = None
    error: str = ""  # a reason of pipeline.reasons, and its detail
    neighbors: tuple[Neighbor, ...] = ()
    removed: int = 0  # hits that show the same picture
    jpeg: bytes | None = None  # as stored
    seconds: Mapping[str, float] = field(default_factory=dict)  # its share of its batch's: embed, retrieve, generate


class Fit(NamedTuple):
    """A picture that can be captioned."""

    stored: Stored
    pixels: Tensor  # (1, 3, H, W) uint8


@dataclass(frozen=True)
class Captioner:
    """index: None: the model is shown no neighbours. neighbors: as many it is shown of a picture."""

    answerer: Answerer
    index: LiveIndex | None
    decoding: Decoding = Decoding()
    neighbors: int = 0

    @classmethod
    def open(
        cls,
        checkpoint: str,
        index: str | None,
        decoding: Decoding,
        *,
        neighbors: int | None = None,
        other_encoder: bool = False,
    ) -> "Captioner":
        """checkpoint: as Answerer opens it. index: the root of a run whose index is finished; where the model is to be
        shown no neighbours it is not opened. neighbors: None: as many as the model was trained with. other_encoder:
        whether the index may have keys by another encoder than those it was trained with.

        Raises InputError where one of the two cannot be opened or they do not go together.
        """
        shown = neighbors_shown(checkpoint, index, neighbors, other_encoder=other_encoder)
        opened = LiveIndex(index) if index and shown else None
        return cls(Answerer.open(checkpoint), opened, decoding, shown)

    @cached_property
    def sight(self) -> Sight:
        return Sight(self.answerer, self.index)

    def captions(self, pictures: Iterator[Given], batch_size: int = BATCH) -> Iterator[Caption]:
        """In order, one of every picture."""
        while batch := list(islice(pictures, batch_size)):
            yield from self._batch(batch)

    def _batch(self, given: Sequence[Given]) -> list[Caption]:
        faults: dict[int, str] = {}  # by place in the batch, as all that follows
        clock = Clock()
        with clock.running("embed", len(given)):
            fit = self._fit(given, faults)
            looked = self.sight.look(
                [each.pixels for each in fit.values()], [each.stored.jpeg for each in fit.values()]
            )
        seen = dict(zip(fit, looked, strict=True))
        shown = dict.fromkeys(fit, NOTHING)
        if self.index:
            with clock.running("retrieve", len(fit)):
                stored, keys = [each.stored for each in fit.values()], [each.key for each in looked]
                shown = dict(zip(fit, self.index.neighbors(stored, keys, self.neighbors), strict=True))
        with clock.running("generate", len(fit)):
            said = self._say(seen, shown, faults)
        return [
            Caption(picture=each.name, error=faults[place])
            if place in faults
            else Caption(
                picture=each.name,
                caption=said[place],
                neighbors=shown[place].kept,
                removed=shown[place].removed,
                jpeg=fit[place].stored.jpeg,
                seconds=clock.seconds,
            )
            for place, each in enumerate(given)
        ]

    def _fit(self, given: Sequence[Given], faults: dict[int, str]) -> dict[int, Fit]:
        fit = {}
        for place, each in enumerate(given):
            stored = as_stored(each)
            if isinstance(stored, str):
                faults[place] = stored
                continue
            try:
                fit[place] = Fit(stored, self.sight.pixels(stored.jpeg))
            except ValueError as error:  # so narrow that it would become huge
                faults[place] = f"{Reason.TOO_MANY_PIXELS}: {error}"
        return fit

    def _say(self, seen: Mapping[int, Seen], shown: Mapping[int, Neighbors], faults: dict[int, str]) -> dict[int, str]:
        prompts = {}
        for place, each in seen.items():
            neighbors = [neighbor.caption for neighbor in shown[place].kept]
            prompt = [Chunk(image=each.image, neighbors=neighbors, ends=False)]
            room = self.answerer.room(prompt)
            if room < self.decoding.max_new_tokens:
                faults[place] = (
                    f"{Reason.PROMPT_TOO_LONG}: it leaves {room} positions of "
                    f"{self.answerer.model.config.language_model.positions} for {self.decoding.max_new_tokens} new "
                    "tokens; ask for fewer, or for fewer neighbours"
                )
            else:
                prompts[place] = prompt
        said = self.answerer.say(list(prompts.values()), self.decoding) if prompts else []
        return dict(zip(prompts, said, strict=True))


def as_stored(given: Given) -> Stored | str:
    """As the crawl would store it, or why it would not."""
    if given.body is None:
        return given.fault
    refused: list[str] = []
    made = stored_picture(given.body, DownloadRecipe(), lambda why, detail: refused.append(f"{why}: {detail}"))
    return made or refused[0]


@dataclass
class Clock:
    """Seconds a picture, by what takes them."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def running(self, what: str, pictures: int) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[what] = (time.perf_counter() - started) / max(pictures, 1)
