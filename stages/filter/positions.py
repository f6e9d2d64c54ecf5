"""A judged row's position: its number over all judge shards, in order. Duplicates are named by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.commits import Whole

Integers = npt.NDArray[np.int64]


def first_positions(judged: Whole) -> dict[str, int]:
    """Judge shard → position of its first row."""
    sizes = [summary.rows_out for summary in judged.shards.values()]
    return dict(zip(judged.shards, accumulate(sizes, initial=0), strict=False))


@dataclass(frozen=True)
class Survivors:
    """The judged rows that no duplicate rule dropped. dropped: ascending positions, a mapped file a partition."""

    first: Mapping[str, int]
    sizes: Mapping[str, int]
    dropped: Sequence[npt.NDArray[Any]]

    @classmethod
    def of(cls, judged: Whole, duplicates: Whole | None) -> "Survivors":
        dropped = [duplicates.read(shard).array("dropped") for shard in duplicates.shards] if duplicates else []
        sizes = {shard: summary.rows_out for shard, summary in judged.shards.items()}
        return cls(first_positions(judged), sizes, dropped)

    def rows(self, shard: str) -> Integers:
        """Of a judge shard, the rows that are left, ascending."""
        first, size = self.first[shard], self.sizes[shard]
        left = np.ones(size, np.bool_)
        for positions in self.dropped:
            start, stop = np.searchsorted(positions, [first, first + size])
            left[positions[start:stop] - first] = False
        return np.flatnonzero(left)

    def between(self, shard: str, start: int, stop: int) -> tuple[int, int]:
        """The same range of a judge shard's rows, counted in the rows that are left."""
        first, last = np.searchsorted(self.rows(shard), [start, stop])
        return int(first), int(last)
