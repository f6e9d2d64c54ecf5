"""The nearest rows of many queries by arithmetic as fast as the machine's, and a proven bound on what it passed over.

The corpus is read tile by tile, once for all queries at hand. A tile's products are looked at through the maxima of
its chunks, and only chunks that hold something better than a query's K-th so far are sorted: memory is passed over
twice, and little of it is compared.
Shapes: Q queries, D width, n rows of a tile, m those rows filled up to whole chunks, K kept a query.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.arithmetic import FLOAT32, FLOAT64, MATRIX_UNITS, Arithmetic, full_precision, multiply
from pipeline.errors import InputError
from stages.index.vectors import Ids

Floats = npt.NDArray[np.float64]
Halves = npt.NDArray[np.float16]
CHUNK = 8  # rows that share a maximum


class Rows(Protocol):
    """What is searched: ids ascend from block to block, those within a block are consecutive."""

    @property
    def width(self) -> int: ...
    def blocks(self) -> Iterator[tuple[int, Halves]]: ...
    def gather(self, ids: Ids) -> Halves: ...


@dataclass(frozen=True)
class Limits:
    """Working memory: products of at most `tile_rows` rows (a multiple of CHUNK) at once, `max_bytes` in all."""

    tile_rows: int
    max_bytes: int

    def queries(self, kept: int) -> int:
        """How many at once. A query takes its products, and while its candidates are sorted, places and values."""
        return max(self.max_bytes // (4 * self.tile_rows + 12 * CHUNK * min(kept, self.tile_rows)), 1)


LIMITS = {"cpu": Limits(32_768, 2**30), "cuda": Limits(8_192, 2**32)}
"""Products of the first are measured to reach the processor's full rate. On a GPU more queries at a time matter more:
a tile's way there from the host's memory is shared by them."""


def fastest(queries: npt.NDArray[np.float32], device: str) -> Arithmetic:
    """Matrix units multiply float16 and sum in float32: only where the queries are float16 as they stand."""
    given = torch.from_numpy(queries)
    on_gpu = torch.device(device).type == "cuda"
    return MATRIX_UNITS if on_gpu and torch.equal(given.half().float(), given) else FLOAT32


@dataclass(frozen=True)
class Search:
    """Some queries (Q, D) and the rows that each of them may find: all but its excluded ones and those not alive."""

    vectors: Rows
    queries: npt.NDArray[np.float32]
    exclude: Sequence[Ids] | None
    alive: npt.NDArray[np.bool_] | None

    def part(self, queries: slice | Ids) -> "Search":
        numbers = np.arange(len(self.queries))[queries]
        exclude = None if self.exclude is None else [self.exclude[number] for number in numbers]
        return Search(self.vectors, self.queries[queries], exclude, self.alive)

    def parts(self, size: int) -> Iterator[tuple[slice, "Search"]]:
        for first in range(0, len(self.queries), size):
            part = slice(first, first + size)
            yield part, self.part(part)

    def tiles(self, size: int) -> Iterator[tuple[Ids, Halves]]:
        """Ids (n,) and rows (n, D) of all that are alive, in order. Valid until the next is asked for."""
        ids, rows, filled = np.empty(size, np.int64), np.empty((size, self.vectors.width), np.float16), 0
        for first, block in self.vectors.blocks():
            places = np.arange(len(block))
            if self.alive is not None:
                places = places[self.alive[first : first + len(block)]]
            while len(places):
                taken, places = places[: size - filled], places[size - filled :]
                end = filled + len(taken)
                ids[filled:end], rows[filled:end] = first + taken, block[taken]
                filled = end % size
                if not filled:
                    yield ids, rows
        if filled:
            yield ids[:filled], rows[:filled]

    def barred(self) -> Ids:
        """(pairs, 2): excluded row and number of the query, by row."""
        exclude = [] if self.exclude is None else self.exclude
        numbers = np.repeat(np.arange(len(exclude)), [len(rows) for rows in exclude])
        pairs = np.column_stack([np.concatenate([*exclude, np.empty(0, np.int64)]), numbers])
        ordered: Ids = pairs[np.argsort(pairs[:, 0], kind="stable")]
        return ordered


@dataclass(frozen=True)
class Products:
    """A tile's products with all queries."""

    ids: Ids  # (n,)
    rows: Halves  # (n, D)
    values: Tensor  # (Q, m): −inf where a query may not find the row, and beyond the n rows
    longest: Tensor  # norm of the longest row


def products(search: Search, arithmetic: Arithmetic, device: str, tile_rows: int) -> Iterator[Products]:
    """Tile by tile; valid until the next is asked for."""
    queries = torch.from_numpy(search.queries).to(device, arithmetic.dtype)
    sums = torch.float64 if arithmetic is FLOAT64 else torch.float32
    right = torch.zeros(tile_rows, queries.shape[1], dtype=arithmetic.dtype, device=device)
    room = torch.empty(len(queries) * tile_rows, dtype=sums, device=device)  # new memory costs as much as sorting
    barred = search.barred()
    for ids, rows in search.tiles(tile_rows):
        num, filled = len(ids), len(ids) + -len(ids) % CHUNK
        right[:num] = torch.from_numpy(rows)
        values = room[: len(queries) * filled].view(len(queries), filled)
        multiply(queries, right[:filled], values)
        values[:, num:] = -torch.inf
        values[_places(barred, ids)] = -torch.inf
        yield Products(ids, rows, values, torch.linalg.vector_norm(right[:num], dim=1, dtype=sums).max())


def nearest(search: Search, kept: int, device: str, tile_rows: int) -> tuple[Ids, Floats]:
    """The K best of every query by approximate similarity.

    → ids (Q, K), −1 where fewer rows are left; and what no other row's exact similarity exceeds (Q,), −inf where there
    is no other row. Raises InputError where a row is not finite: it would hide the others of its chunk."""
    arithmetic = fastest(search.queries, device)
    best = torch.full((len(search.queries), kept), -torch.inf, device=device)
    ids = torch.full(best.shape, -1, device=device)
    longest = torch.zeros((), device=device)
    with full_precision():
        for tile in products(search, arithmetic, device, tile_rows):
            best, ids = _better(best, ids, tile.values, torch.from_numpy(tile.ids).to(device))
            longest = torch.maximum(longest, tile.longest)
    if not torch.isfinite(longest):
        raise InputError(_not_finite(search, tile_rows))
    ids[best == -torch.inf] = -1
    return ids.numpy(force=True), best[:, -1].double().numpy(force=True) + guard(search, arithmetic, float(longest))


def guard(search: Search, arithmetic: Arithmetic, longest: float) -> Floats:
    """(Q,): by how much a product may differ from the exact one. What underflows is lost besides."""
    norms = np.linalg.norm(search.queries.astype(np.float64), axis=1)
    underflow = float(np.finfo(np.float32).tiny) if arithmetic is not FLOAT64 else 0.0
    bound: Floats = search.queries.shape[1] * (arithmetic.error * norms * longest + underflow * (1 + longest))
    return bound


def _better(best: Tensor, ids: Tensor, values: Tensor, tile_ids: Tensor) -> tuple[Tensor, Tensor]:
    """best (Q, K) descending and its ids, values (Q, m) of a tile → the best of both.

    The K best of a tile lie in the K chunks of largest maxima. As many chunks are looked into as the query with the
    most has above its K-th: few, once some rows have been seen, and at most K in whatever order the rows come.
    """
    maxima = values.view(len(values), CHUNK, -1).amax(dim=1)  # a chunk: every (m / CHUNK)-th row
    most = int((maxima > best[:, -1:]).sum(dim=1, dtype=torch.int32).max())
    chunks = maxima.topk(min(most, best.shape[1]), sorted=False).indices
    strides = torch.arange(0, values.shape[1], maxima.shape[1], device=values.device)
    places = (chunks[:, None] + strides[:, None]).flatten(1)
    top = torch.cat([best, values.gather(1, places)], dim=1).topk(best.shape[1])
    known = functional.pad(tile_ids, (0, values.shape[1] - len(tile_ids)), value=-1)
    return top.values, torch.cat([ids, known[places]], dim=1).gather(1, top.indices)


def _places(barred: Ids, ids: Ids) -> tuple[Tensor, Tensor]:
    """Query and column of the pairs whose row is in the tile."""
    inside = barred[slice(*np.searchsorted(barred[:, 0], [ids[0], ids[-1] + 1]))]
    columns = np.searchsorted(ids, inside[:, 0])
    there = ids[columns] == inside[:, 0]
    return torch.from_numpy(inside[there, 1]), torch.from_numpy(columns[there])


def _not_finite(search: Search, tile_rows: int) -> str:
    wrong = (ids[~np.isfinite(rows).all(axis=1)] for ids, rows in search.tiles(tile_rows))
    first = next(ids[0] for ids in wrong if len(ids))
    return (
        f"row {first:,} of the {search.vectors.width} wide vectors that are searched holds values that are not finite; "
        "make the stages embed and corpus again"
    )
