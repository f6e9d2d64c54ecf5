"""What a training row is made from, and where such rows come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from model.sequence import Chunk


@dataclass(frozen=True)
class Sample:
    id: str  # pair_id of the pair; of five pairs the query's
    chunks: tuple[Chunk, ...]


class Unusable(Exception):  # noqa: N818 - no fault of the program: the loader counts it and goes on
    """A sample that cannot be learned from; the message is the reason under which it is counted."""


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
