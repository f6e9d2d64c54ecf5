"""What a training row is made from, and where such rows come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from model.sequence import Chunk


@dataclass(frozen=True)
class Sample:
    id: str  # pair_id of the pair; of five pairs the query's
    chunks: tuple[Chunk, ...]


WhyNot = Literal["held_out", "learned", "no_picture", "too_long"]
REASONS: tuple[WhyNot, ...] = get_args(WhyNot)
"""Why a sample is left out; `learned` where held-out ones are asked for."""


class Unusable(Exception):  # noqa: N818 - no fault of the program: the loader counts it and goes on
    """A sample that cannot be learned from; the message is the reason under which it is counted."""

    def __init__(self, reason: WhyNot) -> None:
        super().__init__(reason)


class Source(Protocol):
    """Samples by shard and row, in any order; a process of the loader opens its own."""

    @property
    def sizes(self) -> Sequence[int]:
        """Samples of every shard."""

    def sample(self, shard: int, row: int) -> Sample:
        """Raises Unusable."""


@dataclass(frozen=True)
class Listed:
    """A source in memory."""

    samples: Sequence[Sample]

    @property
    def sizes(self) -> Sequence[int]:
        return [len(self.samples)]

    def sample(self, shard: int, row: int) -> Sample:
        return self.samples[row]
