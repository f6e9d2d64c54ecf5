"""The serving shards, opened for search: read-only and memory-mapped, so that the processes of a node share them.

Shapes: Q queries, D width, R candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.commits import Whole
from stages.index.vectors import Ids

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Serving:
    """Every shard has all centroids and its own range of lists, so one search in each, with the same number of probes,
    looks at what a single index would."""

    shards: Sequence[Any]

    @classmethod
    def open(cls, index: Whole) -> "Serving":
        """Raises InputError where a file is missing or has another size than was written."""
        import faiss

        flags = faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY
        return cls([faiss.read_index(str(index.read(shard).path("serving")), flags) for shard in index.shards])

    def candidates(
        self, queries: Scores, count: int, nprobe: int, exclude: Sequence[Ids] | None = None
    ) -> tuple[Ids, Scores]:
        """queries (Q, D) float32 → ids and scores (Q, count), best code first, less each query's own excluded ids.
        Padded with id −1 and score −inf. Which of several equal codes come in at the end is up to FAISS."""
        spare = max(map(len, exclude), default=0) if exclude is not None else 0
        found = [_search(shard, queries, count + spare, nprobe) for shard in self.shards]
        scores, ids = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        if exclude is not None:
            ids[_among(ids, exclude)] = -1
        scores[ids < 0] = -np.inf
        order = np.lexsort((ids, -scores), axis=1)[:, :count]
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _search(index: Any, queries: Scores, count: int, nprobe: int) -> tuple[Scores, Ids]:
    import faiss

    params: Any = faiss.SearchParametersIVF()
    params.nprobe = nprobe
    outer: Any = params
    if isinstance(index, faiss.IndexPreTransform):
        outer = faiss.SearchParametersPreTransform()
        outer.index_params = params
    scores, ids = index.search(queries, count, params=outer)
    return scores, ids


def _among(ids: Ids, exclude: Sequence[Ids]) -> npt.NDArray[np.bool_]:
    """(Q, R): is it one of its query's excluded ids?"""
    return np.stack([np.isin(row, barred) for row, barred in zip(ids, exclude, strict=True)])
