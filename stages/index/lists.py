"""Which inverted list every row lies in, read from the files that are searched, and what queries reach of them.

Shapes: N ids, Q queries, D width, K neighbours.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from stages.index.faiss_index import fingerprint, inverted_file
from stages.index.serving import Scores, Serving
from stages.index.vectors import Ids

MOST_PROBES = 1024  # lists that a query may probe


@dataclass(frozen=True)
class Lists:
    """numbers: (N,) by id, −1: in none, which only a deleted row may be. sizes: (nlist,) entries of each list."""

    serving: Serving
    numbers: npt.NDArray[np.int32]
    sizes: Ids

    @classmethod
    def read(cls, template: Any, serving: Serving, size: int, alive: npt.NDArray[np.bool_] | None) -> "Lists":
        """size: N. Raises InputError where a shard was not made of the template, holds other lists or other many rows
        than it should, an id lies in two lists, or a row that is alive in none."""
        trained = fingerprint(template)
        numbers = np.full(size, -1, np.int32)
        sizes = np.zeros(inverted_file(serving.shards[0].index).nlist, np.int64)
        for shard, held in zip(serving.shards, serving.ranges, strict=True):
            if fingerprint(shard.index) != trained:
                raise InputError(
                    f"index: serving shard {held.shard} was made of another template; build the index again"
                )
            mine = shard.sizes()
            filled = np.flatnonzero(mine)
            if mine.sum() != held.rows or (
                filled.size and not held.first_list <= filled[0] <= filled[-1] < held.end_list
            ):
                raise InputError(
                    f"index: serving shard {held.shard} holds {mine.sum()} rows, and should hold {held.rows} in lists "
                    f"{held.first_list} to {held.end_list - 1}; remove the stage `index` and build it again"
                )
            for number in filled:
                ids = shard.ids(int(number))
                if ids.min() < 0 or ids.max() >= size or (numbers[ids] >= 0).any() or len(np.unique(ids)) < len(ids):
                    raise InputError(
                        f"index: list {number} of serving shard {held.shard} holds ids that are not its own"
                    )
                numbers[ids] = number
            sizes += mine
        _check_complete(numbers, alive)
        return cls(serving, numbers, sizes)

    @property
    def most_probes(self) -> int:
        return min(len(self.sizes), MOST_PROBES)

    def covered(self, queries: Scores, neighbors: Ids, nprobe: int) -> tuple[npt.NDArray[np.bool_], float]:
        """queries (Q, D), neighbors (Q, K) → which neighbours lie in the lists that their query probes (Q, K), and the
        codes that a query scans, on average."""
        lists = self.serving.probe(queries, nprobe).lists
        probed = np.zeros((len(queries), len(self.sizes) + 1), np.bool_)  # the last: a graph's −1, and rows in no list
        np.put_along_axis(probed, lists, values=True, axis=1)
        probed[:, -1] = False
        inside: npt.NDArray[np.bool_] = np.take_along_axis(probed, self.numbers[neighbors].astype(np.int64), axis=1)
        return inside, float(self.sizes[lists[lists >= 0]].sum() / len(queries))


def _check_complete(numbers: npt.NDArray[np.int32], alive: npt.NDArray[np.bool_] | None) -> None:
    missing = np.flatnonzero(numbers < 0) if alive is None else np.flatnonzero((numbers < 0) & alive)
    if missing.size:
        raise InputError(f"index: {missing.size} rows lie in no list, id {missing[0]} first; build the index again")
