"""Exact similarities and exact search: inner products of the stored float16 vectors, in float64.

Products of float16 are multiples of 2^-48 and their sums stay far below 2^5, so where queries are stored vectors too,
every figure is exact in any order of summation. For other queries, rows of equal bytes get equal figures.
Shapes: Q queries, D width, R candidates, k results.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.index.vectors import Ids, Vectors

Floats = npt.NDArray[np.float64]
GATHERED = 4096  # candidate rows that are widened at once: 16 MiB at width 512


def exact_search(
    vectors: Vectors,
    queries: npt.ArrayLike,
    k: int,
    exclude: Sequence[Ids],
    alive: npt.NDArray[np.bool_] | None = None,
) -> tuple[Ids, Floats]:
    """queries (Q, D) → ids (Q, k) and similarities (Q, k), ordered by similarity, then by smaller id, less each query's
    own excluded ids. Where fewer rows are left: id −1, similarity −inf."""
    wide = np.asarray(queries, np.float64)
    ids = np.full((len(wide), k), -1, np.int64)
    best = np.full((len(wide), k), -np.inf)
    barred = _flat(exclude)
    for start, block in vectors.blocks():
        similarity = wide @ block.astype(np.float64).T
        if alive is not None:
            similarity[:, ~alive[start : start + len(block)]] = -np.inf
        inside = slice(*np.searchsorted(barred[:, 0], [start, start + len(block)]))
        similarity[barred[inside, 1], barred[inside, 0] - start] = -np.inf
        ids, best = _merge(ids, best, similarity, start)
    return ids, best


def exact_similarity(vectors: Vectors, queries: npt.ArrayLike, ids: Ids) -> Floats:
    """queries (Q, D), ids (Q, R) → (Q, R); −inf where the id is −1."""
    wide = np.asarray(queries, np.float64)
    found = np.empty(ids.shape)
    step = max(GATHERED // max(ids.shape[1], 1), 1)
    for first in range(0, len(ids), step):
        some = ids[first : first + step]
        rows = vectors.gather(np.maximum(some, 0).ravel()).reshape(*some.shape, -1).astype(np.float64)
        # einsum sums every row alike; a matrix product does not, and would order duplicates by rounding
        found[first : first + step] = np.einsum("qd,qrd->qr", wide[first : first + step], rows)
    found[ids < 0] = -np.inf
    return found


def best_first(ids: Ids, similarity: Floats, k: int) -> tuple[Ids, Floats]:
    """(Q, R) → (Q, k): by similarity, then by smaller id."""
    order = np.lexsort((ids, -similarity), axis=1)[:, :k]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(similarity, order, axis=1)


def _flat(exclude: Sequence[Ids]) -> Ids:
    """(pairs, 2): row id and query number, by row id."""
    numbers = np.repeat(np.arange(len(exclude)), [len(rows) for rows in exclude])
    pairs = np.column_stack([np.concatenate([*exclude, np.empty(0, np.int64)]), numbers])
    ordered: Ids = pairs[np.argsort(pairs[:, 0], kind="stable")]
    return ordered


def _merge(ids: Ids, best: Floats, similarity: Floats, start: int) -> tuple[Ids, Floats]:
    """The k best of those so far and of a block's rows. All that tie with the k-th are looked at."""
    num, k = ids.shape
    kth = max(similarity.shape[1] - k, 0)
    floor = np.maximum(best[:, -1], np.partition(similarity, kth, axis=1)[:, kth])
    query, row = np.nonzero((similarity >= floor[:, None]) & (similarity > -np.inf))
    every_query = np.concatenate([np.repeat(np.arange(num), k), query])
    every_id = np.concatenate([ids.ravel(), row + start])
    every_similarity = np.concatenate([best.ravel(), similarity[query, row]])
    order = np.lexsort((every_id, -every_similarity, every_query))
    kept = order[np.searchsorted(every_query[order], np.arange(num))[:, None] + np.arange(k)]
    return every_id[kept], every_similarity[kept]
