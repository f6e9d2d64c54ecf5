"""The vectors of a whole corpus by row id, memory-mapped where they lie.

Shapes: N rows, D width, n rows asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.commits import Whole

Ids = npt.NDArray[np.int64]
BLOCK = 8192  # rows that are widened at once


@dataclass(frozen=True)
class Vectors:
    """The matrix (N, D) float16 of record, as one file a shard."""

    corpus: Whole
    name: Literal["img_emb", "text_emb"]

    @cached_property
    def _shards(self) -> list[npt.NDArray[np.float16]]:
        return [self.corpus.read(shard).array(self.name) for shard in self.corpus.shards]

    @cached_property
    def _starts(self) -> Ids:
        return np.cumsum([0, *map(len, self._shards)])

    @property
    def width(self) -> int:
        return int(self._shards[0].shape[1])

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float16]]]:
        """All rows in order: the first one's id, and at most BLOCK of them."""
        for start, shard in zip(self._starts, self._shards, strict=False):
            for first in range(0, len(shard), BLOCK):
                yield int(start) + first, shard[first : first + BLOCK]

    def gather(self, ids: Ids) -> npt.NDArray[np.float16]:
        """(n,) row ids in any order → (n, D). Raises IndexError where an id is no row."""
        if ids.size and not 0 <= ids.min() <= ids.max() < self._starts[-1]:
            raise IndexError(f"row ids {ids.min()} to {ids.max()} of a corpus of {self._starts[-1]:,} rows")
        found = np.empty((len(ids), self.width), np.float16)
        for number, places, rows in _by_shard(self._starts, ids):
            found[places] = self._shards[number][rows]
        return found


def _by_shard(starts: Ids, ids: Ids) -> Iterator[tuple[int, Ids, Ids]]:
    """Each shard that holds some of the ids: its number, their places in `ids`, and their rows in the shard.

    starts: (shards + 1,) the first id of every shard, and N.
    """
    order = np.argsort(ids, kind="stable")
    bounds = np.searchsorted(ids[order], starts)
    for number in np.flatnonzero(np.diff(bounds)):
        places = order[bounds[number] : bounds[number + 1]]
        yield int(number), places, ids[places] - starts[number]
