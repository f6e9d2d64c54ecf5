"""Two ways to the nearest rows of a database, with one result.

exact   every row is compared; the answer is the definition itself
index   the nearest inverted lists are scanned by their codes, and four times as many candidates as asked for (at least
        as many as the index was tuned to) are measured exactly; what the probed lists or the codes miss is missed

`auto` takes the cheaper where every database has an index, and `exact` elsewhere, by modelled cost:
    exact   2 · queries · rows · width floating-point operations at the rate of one process' core or GPU
    index   queries · what a search costs at the tuned number of probes and this re-rank depth, as the index' report
            models it
Shapes: Q queries, D width.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from stages.index import Database, Key, Retriever, best_first, cost_us, exact_search, exact_similarity
from stages.neighbors.recipe import EngineName

FLOP_PER_S = {"cpu": 5e10, "cuda": 2e14}
"""The whole of exact search on one AVX2 core, measured at 20,000 rows of width 512; of a GPU a fifth of what an H100
multiplies in float16, assumed."""
FOUND_BY_CODE = 4  # candidates that are measured for one that is asked for
MORE_PROBES = 4  # times the tuned number, for queries that ask again
SCANNED = 2**22  # candidates of all queries and serving shards that are held at once: 50 MB

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Half = npt.NDArray[np.float16]


class Engine(Protocol):
    def candidates(self, queries: Half, count: int) -> tuple[Ids, Floats]:
        """queries (Q, D) → ids and similarities (Q, count) of rows that are alive, by similarity and then by id; where
        there are no more: id −1, similarity −inf."""


class Exact:
    """Raises InputError where the device is not there."""

    def __init__(self, database: Database, key: Key, device: str) -> None:
        import torch

        if device != "cpu" and not torch.cuda.is_available():
            raise InputError(
                f"neighbors.device is {device}, but torch {torch.__version__} finds no GPU; set neighbors.device=cpu"
            )
        self._vectors, self._alive, self._device = database.vectors(key), database.alive, device

    def candidates(self, queries: Half, count: int) -> tuple[Ids, Floats]:
        return exact_search(self._vectors, queries, count, alive=self._alive, device=self._device)


class Indexed:
    """first_count: what every query asks for; one that asks for more is one that fell short, and probes more lists."""

    def __init__(self, database: Database, first_count: int) -> None:
        assert database.index is not None, "checked before anything started"
        index = database.index
        more = min(index.tuned["image"].nprobe * MORE_PROBES, index.nlist)
        self._tuned, self._thorough = Retriever(database.root), Retriever(database.root, nprobe=more)
        self._vectors, self._first_count = database.vectors(), first_count
        self._shards = sum(len(part.ranges) for part in index.serving)

    def candidates(self, queries: Half, count: int) -> tuple[Ids, Floats]:
        retriever = self._tuned if count <= self._first_count else self._thorough
        measured = reranked(retriever.depth, count)
        step = max(SCANNED // (measured * self._shards), 1)
        found = [
            self._nearest(retriever, queries[first : first + step], measured, count)
            for first in range(0, len(queries), step)
        ]
        ids, similarity = zip(*found, strict=True)
        return np.concatenate(ids), np.concatenate(similarity)

    def _nearest(self, retriever: Retriever, queries: Half, measured: int, count: int) -> tuple[Ids, Floats]:
        ids, _ = retriever.search(queries, measured, rerank=False)
        return best_first(ids, exact_similarity(self._vectors, queries, ids), count)


def reranked(tuned_depth: int, count: int) -> int:
    return max(tuned_depth, FOUND_BY_CODE * count)


def modelled_seconds(
    databases: Sequence[Database], queries: int, width: int, first_count: int, device: str
) -> dict[EngineName, float]:
    """Of one process, by engine; of those that can be used."""
    rows = sum(database.size for database in databases)
    seconds: dict[EngineName, float] = {"exact": 2 * queries * rows * width / FLOP_PER_S[device]}
    indexes = [database.index for database in databases if database.index]
    if len(indexes) == len(databases):
        by_image = [next(row for row in index.recall if row["direction"] == "image") for index in indexes]
        costs = [
            cost_us(row["codes_scanned"], reranked(index.tuned["image"].depth, first_count))
            for index, row in zip(indexes, by_image, strict=True)
        ]
        seconds["index"] = queries * sum(costs) / 1e6
    return seconds
