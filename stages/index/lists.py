"""Which inverted list every row of the corpus lies in, and in what order queries probe the lists.

Shapes: N rows, Q queries, D width, K neighbours.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.commits import Whole
from pipeline.errors import InputError
from stages.index.exact import Floats
from stages.index.factory import before_lists, inverted_file
from stages.index.serving import Scores
from stages.index.vectors import Ids

BLOCK = 64  # queries whose probe orders are held at once


def list_sizes(added: Whole, nlist: int) -> Ids:
    """(nlist,) vectors in each inverted list."""
    lists = (added.read(shard).array("lists") for shard in added.shards)
    return sum((np.bincount(numbers, minlength=nlist) for numbers in lists), np.zeros(nlist, np.int64))


@dataclass(frozen=True)
class Lists:
    """Which inverted list every row lies in."""

    template: Any
    numbers: npt.NDArray[np.int32]  # (N,) by row id
    sizes: Ids  # (nlist,)

    @classmethod
    def read(cls, template: Any, added: Whole) -> "Lists":
        """Raises InputError where a row of the corpus was not added, or another one twice."""
        numbers = np.full(added.rows, -1, np.int32)
        for name in added.shards:
            shard = added.read(name)
            numbers[shard.array("ids")] = shard.array("lists")
        missing = np.flatnonzero(numbers < 0)
        if missing.size:
            raise InputError(
                f"{added.folder.root}/index_add lacks {missing.size} rows, row {missing[0]} first; make it again"
            )
        return cls(template, numbers, list_sizes(added, inverted_file(template).nlist))

    def probe(self, queries: Scores, neighbors: Ids) -> tuple[Ids, Floats]:
        """queries (Q, D), neighbors (Q, K) → as which one each neighbour's list is probed (Q, K), and the codes in the
        first 1, 2, … probed lists (nlist,), averaged."""
        nlist = len(self.sizes)
        places, scanned = np.empty_like(neighbors), np.zeros(nlist)
        sizes = np.append(self.sizes, 0)  # a graph of centroids may leave some out: its −1 is the list after the last
        for first in range(0, len(queries), BLOCK):
            some = slice(first, first + BLOCK)
            vectors = before_lists(self.template, queries[some])
            _, order = inverted_file(self.template).quantizer.search(vectors, nlist)
            place = np.full((len(order), nlist + 1), nlist)
            np.put_along_axis(place, order, np.arange(nlist)[None], axis=1)
            places[some] = np.take_along_axis(place, self.numbers[neighbors[some]].astype(np.int64), axis=1)
            scanned += np.cumsum(sizes[order], axis=1).sum(axis=0)
        return places, scanned / len(queries)
