"""What mining is measured against: float64 brute force, plain tiled products, and FAISS's range search. Imports torch.

Every rival gives the rows of the supports, −1 behind the last. It leaves out the query itself alone, because the pairs
that are drawn to measure with share nothing else.
Shapes: N rows, D width, Q queries, k supports, T rows of a tile.
"""

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from stages.interleave.band import Band, Floats
from stages.interleave.supports import Half, Ids, Rule, Supports
from trials.benchmarks.interleave_vectors import PairSet

SPARE = 4  # candidates beyond k that the float64 order decides about
QUERIES, TILE_ROWS = 512, 2048  # of tiled products: the fastest of 256 to 1024, and of 2048 to 16384
EXACT_QUERIES, EXACT_ROWS = 2048, 4096  # of brute force: 64 MiB of products a side
FILLER = -2.0  # below every cosine
NEAR = 1e-6  # float32 may not tell apart what is as near


class Rival(Protocol):
    @property
    def exhaustive(self) -> bool:
        """Differs from the exact answers by rounding alone."""

    def prepare(self) -> None: ...

    def rows(self, ids: Ids) -> Ids:
        """ids (Q,) → (Q, k)."""


@dataclass(frozen=True)
class Tiled:
    """Two full float32 products a tile, mask, topk, running merge, and the float64 order of what is left."""

    some: PairSet
    rule: Rule
    exhaustive = True

    def prepare(self) -> None:
        assert self.some.wide

    def rows(self, ids: Ids) -> Ids:
        parts = np.split(ids, range(QUERIES, len(ids), QUERIES))
        return in_order(self.some, ids, np.concatenate([*map(self._candidates, parts)]), self.rule.k)

    def _candidates(self, asked: Ids) -> Ids:
        images, captions = map(torch.from_numpy, self.some.wide)
        ids, band, kept = torch.from_numpy(asked), self.rule.band, self.rule.k + SPARE
        queries, query_captions = images[ids], captions[ids]
        best, rows = torch.full((len(ids), kept), FILLER), torch.full((len(ids), kept), -1)
        rooms = torch.empty(2, len(ids) * TILE_ROWS)
        for first in range(0, len(images), TILE_ROWS):
            tile = slice(first, min(first + TILE_ROWS, len(images)))
            shape = len(ids), tile.stop - first
            near, alike = (room[: shape[0] * shape[1]].view(shape) for room in rooms)
            torch.mm(queries, images[tile].T, out=near)
            torch.mm(query_captions, captions[tile].T, out=alike)
            alike.masked_fill_((near < band.lowest_cosine) | (near > band.highest_cosine), FILLER)
            own = torch.nonzero((ids >= first) & (ids < tile.stop))[:, 0]
            alike[own, ids[own] - first] = FILLER
            found, places = alike.topk(min(kept, shape[1]))
            best, order = torch.cat([best, found], 1).topk(kept)
            rows = torch.cat([rows, places + first], 1).gather(1, order)
        rows[best == FILLER] = -1
        return rows.numpy()


@dataclass(frozen=True)
class Ranged:
    """Range search of the images by a FAISS index, then the captions of what it found."""

    some: PairSet
    rule: Rule
    factory: str  # Flat, or an inverted file

    @property
    def exhaustive(self) -> bool:
        return self.factory == "Flat"

    def prepare(self) -> None:
        assert self.index.is_trained

    @cached_property
    def index(self) -> Any:
        import faiss

        index = faiss.index_factory(self.some.images.shape[1], self.factory, faiss.METRIC_INNER_PRODUCT)
        index.train(self.some.wide[0])
        index.add(self.some.wide[0])
        return index

    def rows(self, ids: Ids) -> Ids:
        captions, kept = self.some.wide[1], self.rule.k + SPARE
        candidates = np.full((len(ids), kept), -1)
        for number, rows in enumerate(self._in_band(ids)):
            alike = captions[rows] @ captions[ids[number]]
            best = rows if len(rows) <= kept else rows[np.argpartition(-alike, kept)[:kept]]
            candidates[number, : len(best)] = best
        return in_order(self.some, ids, candidates, self.rule.k)

    def in_band(self, ids: Ids) -> int:
        """Pairs in these queries' bands."""
        return sum(map(len, self._in_band(ids)))

    def probe(self, share: float, flat: "Ranged", ids: Ids) -> None:
        """As few lists from now on as find so much of these queries' bands."""
        whole, index = flat.in_band(ids), self.index

        def found(nprobe: int) -> float:
            index.nprobe = nprobe
            return self.in_band(ids) / whole

        index.nprobe = 1 + bisect_left(range(1, index.nlist), share, key=found)

    def _in_band(self, ids: Ids) -> list[Ids]:
        band = self.rule.band
        above = float(np.nextafter(np.float32(band.lowest_cosine), np.float32(-1)))  # FAISS gives what is larger
        limits, near, rows = self.index.range_search(self.some.wide[0][ids], above)
        limits = limits.astype(np.int64)
        inside = (near <= band.highest_cosine) & (rows != np.repeat(ids, np.diff(limits)))
        return np.split(rows[inside], np.concatenate([[0], inside.cumsum()])[limits[1:-1]])


def in_order(some: PairSet, ids: Ids, candidates: Ids, k: int) -> Ids:
    """candidates (Q, n) → (Q, k) by exact caption cosine, then row."""
    there = some.captions[candidates].astype(np.float64)
    cosines = np.einsum("qnd,qd->qn", there, some.captions[ids].astype(np.float64))
    cosines[candidates < 0] = -np.inf
    rows: Ids = np.take_along_axis(candidates, np.lexsort((candidates, -cosines))[:, :k], axis=1)
    return rows


def brute_force(some: PairSet, ids: Ids, rule: Rule) -> Supports:
    """All products of both sides in float64, which is exact."""
    best = Supports.none(len(ids), rule.k)
    for start in range(0, len(ids), EXACT_QUERIES):
        part = slice(start, start + EXACT_QUERIES)
        _look_at_all(some, ids[part], rule.band, best.part(part))
    return best


def _look_at_all(some: PairSet, ids: Ids, band: Band, best: Supports) -> None:
    """best: of these queries, changed in place."""
    images, captions = some.images[ids].astype(np.float64), some.captions[ids].astype(np.float64)
    for first in range(0, len(some), EXACT_ROWS):
        tile = slice(first, first + EXACT_ROWS)
        near = images @ some.images[tile].astype(np.float64).T
        alike = captions @ some.captions[tile].astype(np.float64).T
        query, column = np.nonzero(band.holds(near) & (alike >= best.caption_cosines[:, -1:]))
        others = ids[query] != first + column
        query, column = query[others], column[others]
        best.add(query, first + column, near[query, column], alike[query, column])


@dataclass(frozen=True)
class Differences:
    """Queries whose supports are not the exact ones, by what float32 could not tell apart."""

    edges: int  # an image cosine and a bound
    ties: int  # caption cosines
    others: int

    def __str__(self) -> str:
        named = (f"{number} by {name}" for name, number in vars(self).items() if number)
        return ", ".join(named) or "none"


def differences(some: PairSet, ids: Ids, rows: Ids, exact: Supports, band: Band) -> Differences:
    counts = {"edges": 0, "ties": 0, "others": 0}
    for number in np.flatnonzero((rows != exact.rows).any(axis=1)):
        counts[_why(some, ids[number], rows[number], exact.rows[number], band)] += 1
    return Differences(**counts)


def _why(some: PairSet, query: int, found: Ids, right: Ids, band: Band) -> str:
    apart = np.setxor1d(found, right)
    near = _cosines(some.images, query, apart[apart >= 0])
    if min(np.abs(near - bound).min(initial=2) for bound in (band.lowest_cosine, band.highest_cosine)) <= NEAR:
        return "edges"
    alike = np.abs(_cosines(some.captions, query, found) - _cosines(some.captions, query, right))
    return "ties" if min(*found, *right) >= 0 and alike.max() <= NEAR else "others"


def _cosines(side: Half, query: int, rows: Ids) -> Floats:
    cosines: Floats = side[rows].astype(np.float64) @ side[query].astype(np.float64)
    return cosines
