"""The order in which a source's samples are learned: a function of the seed alone, so that a position is one number."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


class Order:
    """Epoch after epoch, every sample once in each: shards are shuffled, and samples among `window` shards at a time,
    as many as a process of the loader keeps open."""

    def __init__(self, sizes: Sequence[int], seed: int, window: int = 4) -> None:
        """sizes: samples of every shard. Raises ValueError where there are none."""
        self._sizes = np.array(sizes, np.int64)
        self.samples = int(self._sizes.sum())
        if not self.samples:
            raise ValueError("the source has no samples")
        self._seed, self._window = seed, window
        self._windows_of = lru_cache(maxsize=2)(self._windows)
        self._shuffled_of = lru_cache(maxsize=2)(self._shuffled)

    def at(self, position: int) -> tuple[int, int]:
        """Shard and row of the sample at a position, counted from 0 through all epochs."""
        epoch, place = divmod(position, self.samples)
        shards, ends = self._windows_of(epoch)
        window = bisect_right(ends, place)
        first = ends[window - 1] if window else 0
        number = self._shuffled_of(epoch, window)[place - first]
        members = shards[window * self._window : (window + 1) * self._window]
        starts = np.cumsum(self._sizes[members]) - self._sizes[members]
        member = int(np.searchsorted(starts, number, side="right")) - 1
        # Behind an empty shard the next one starts at the same number: the last of them is the one with rows.
        return int(members[member]), int(number - starts[member])

    def _windows(self, epoch: int) -> tuple[Numbers, list[int]]:
        """The shards in the epoch's order, and where each window of them ends."""
        shards = np.random.default_rng([self._seed, epoch]).permutation(len(self._sizes))
        rows = [
            int(self._sizes[shards[first : first + self._window]].sum())
            for first in range(0, len(shards), self._window)
        ]
        return shards, list(accumulate(rows))

    def _shuffled(self, epoch: int, window: int) -> Numbers:
        _, ends = self._windows_of(epoch)
        rows = ends[window] - (ends[window - 1] if window else 0)
        return np.random.default_rng([self._seed, epoch, window]).permutation(rows)
