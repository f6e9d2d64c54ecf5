"""Exact similarities and exact search: inner products of the stored float16 vectors, in float64.

Products of float16 are multiples of 2^-48 and their sums stay far below 2^5, so where queries are stored vectors too,
every figure is exact in any order of summation. For other queries, rows of equal bytes get equal figures.
Shapes: Q queries, D width, N rows, R candidates, k results.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from stages.index.vectors import Ids

if TYPE_CHECKING:
    from stages.index.topk import Limits, Rows, Search

Floats = npt.NDArray[np.float64]
Alive = npt.NDArray[np.bool_]
GATHERED = 4096  # candidate rows that are widened at once: 16 MiB at width 512
SPARE = 32  # candidates beyond the k: enough that only larger groups of equal vectors leave the k-th in doubt
CERTAIN = 256  # queries of a search in float64 at a time, because all rows may tie with the k-th


def exact_search(
    vectors: "Rows",
    queries: npt.ArrayLike,
    k: int,
    exclude: Sequence[Ids] | None = None,
    alive: Alive | None = None,
    *,
    device: str | None = None,
    limits: "Limits | None" = None,
) -> tuple[Ids, Floats]:
    """queries (Q, D), float32 or what float32 holds → ids (Q, k) and similarities (Q, k), ordered by similarity, then
    by smaller id, less each query's own excluded ids and the rows that are not alive (N,). Where fewer rows are left:
    id −1, similarity −inf.

    device: where products are made, the GPU if there is one. They are approximate, and more than k rows are kept; what
    is kept is measured exactly. A query whose k-th does not exceed what the others may reach is searched in float64.
    Raises InputError where a query, or a row that may be found, holds a value that is not finite.
    """
    import torch

    from stages.index.topk import LIMITS, Search, nearest

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    limits = limits or LIMITS[torch.device(device).type]
    kept = k + max(SPARE, k // 8)
    search = Search(vectors, np.array(queries, np.float32), exclude, alive)
    if not np.isfinite(search.queries).all():
        raise InputError("a query of an exact search holds values that are not finite, and is similar to nothing")
    ids, best = _nothing(search, k)
    for part, some in search.parts(limits.queries(kept)):
        candidates, unseen = nearest(some, kept, device, limits.tile_rows)
        ids[part], best[part] = best_first(candidates, exact_similarity(vectors, some.queries, candidates), k)
        doubtful = part.start + np.flatnonzero((best[part, -1] <= unseen) & (unseen > -np.inf))
        ids[doubtful], best[doubtful] = _float64_search(search.part(doubtful), k, device, limits.tile_rows)
    return ids, best


def float64_search(
    vectors: "Rows",
    queries: npt.ArrayLike,
    k: int,
    exclude: Sequence[Ids] | None = None,
    alive: Alive | None = None,
    tile_rows: int = 8192,
) -> tuple[Ids, Floats]:
    """What exact_search returns, by looking at every row in float64."""
    from stages.index.topk import Search

    return _float64_search(Search(vectors, np.array(queries, np.float32), exclude, alive), k, "cpu", tile_rows)


def exact_similarity(vectors: "Rows", queries: npt.ArrayLike, ids: Ids) -> Floats:
    """queries (Q, D), ids (Q, R) → (Q, R); −inf where the id is −1."""
    wide = np.asarray(queries, np.float64)
    found = np.empty(ids.shape)
    step = max(GATHERED // max(ids.shape[1], 1), 1)
    for first in range(0, len(ids), step):
        some = ids[first : first + step]
        rows = np.zeros((*some.shape, wide.shape[1]), np.float16)
        rows[some >= 0] = vectors.gather(some[some >= 0])
        found[first : first + step] = _inner(wide[first : first + step], rows)
    found[ids < 0] = -np.inf
    return found


def best_first(ids: Ids, similarity: Floats, k: int) -> tuple[Ids, Floats]:
    """(Q, R) → (Q, k): by similarity, then by smaller id."""
    order = np.lexsort((ids, -similarity), axis=1)[:, :k]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(similarity, order, axis=1)


def _inner(queries: Floats, rows: npt.NDArray[np.float16]) -> Floats:
    """queries (Q, D), rows (Q, R, D) → (Q, R). Every row is summed alike, which a matrix product does not do: it would
    order equal rows by their rounding."""
    inner: Floats = np.einsum("qd,qrd->qr", queries, rows.astype(np.float64))
    return inner


def _paired(queries: npt.NDArray[np.float32], rows: npt.NDArray[np.float16], query: Ids, row: Ids) -> Floats:
    """queries (Q, D), rows (n, D) → (R,) of the query and row numbers (R,): up to Q · n, where all rows are equal."""
    inner = np.empty(len(query))
    for first in range(0, len(query), GATHERED):
        some = slice(first, first + GATHERED)
        inner[some] = _inner(queries[query[some]].astype(np.float64), rows[row[some]][:, None])[:, 0]
    return inner


def _nothing(search: "Search", k: int) -> tuple[Ids, Floats]:
    shape = len(search.queries), k
    return np.full(shape, -1, np.int64), np.full(shape, -np.inf)


def _float64_search(search: "Search", k: int, device: str, tile_rows: int) -> tuple[Ids, Floats]:
    from pipeline.arithmetic import FLOAT64
    from stages.index.topk import guard, products

    ids, best = _nothing(search, k)
    for part, some in search.parts(CERTAIN):
        for tile in products(some, FLOAT64, device, tile_rows):
            slack = 2 * guard(some, FLOAT64, float(tile.longest))
            values = tile.values.numpy(force=True)[:, : len(tile.ids)]
            query, row = _reaching(values, best[part, -1], slack, k)
            similarity = _paired(some.queries, tile.rows, query, row)
            ids[part], best[part] = _merge(ids[part], best[part], query, tile.ids[row], similarity)
    return ids, best


def _reaching(values: Floats, least: Floats, slack: Floats, k: int) -> tuple[Ids, Ids]:
    """values (Q, n), each at most slack / 2 off → query and row of all that may be among the k best, those that tie
    with the k-th included. least (Q,): the k-th so far."""
    kth = max(values.shape[1] - k, 0)
    floor = np.maximum(least, np.partition(values, kth, axis=1)[:, kth]) - slack
    query, row = np.nonzero((values >= floor[:, None]) & (values > -np.inf))
    return query, row


def _merge(ids: Ids, best: Floats, query: Ids, row: Ids, similarity: Floats) -> tuple[Ids, Floats]:
    """The k best of those so far (Q, k) and of further ones, given as triples."""
    num, k = ids.shape
    every_query = np.concatenate([np.repeat(np.arange(num), k), query])
    every_id = np.concatenate([ids.ravel(), row])
    every_similarity = np.concatenate([best.ravel(), similarity])
    order = np.lexsort((every_id, -every_similarity, every_query))
    kept = order[np.searchsorted(every_query[order], np.arange(num))[:, None] + np.arange(k)]
    return every_id[kept], every_similarity[kept]
