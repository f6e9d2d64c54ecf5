"""Mining by all products of both sides: what a GPU is good at, and on a processor the plain engine that the sweep is
compared with.

Tile by tile of rows, for some queries at a time: the products of captions say which rows may be among a query's k best;
where it has no k yet, those of images say which rows may lie in the band, and how good k of them are at least. What may
be is measured in float64, which is exact, and joins the best.
Shapes: Q queries, T rows of a tile, D width, k supports, n pairs that are measured, rules as the leakage rules count.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.arithmetic import FLOAT32, MATRIX_UNITS, Arithmetic, full_precision, multiply
from stages.filter import SAME_IMAGE_COSINE
from stages.interleave.pairs import Candidates
from stages.interleave.supports import Half, Hashes, Ids, Queries, Rule, Supports
from stages.neighbors import NONE, RULES

CHUNK = 32  # rows of a tile that share a maximum
GATHERED = 2**17  # pairs of a tile that are measured one by one; of more, all products are made first
MEASURED = 2**17  # pairs measured at once: 1.5 GiB at width 512
WORKING = 10 * 2**30  # bytes of a GPU that a block and a tile may take while they are compared


@dataclass(frozen=True)
class Limits:
    queries: int
    tile_rows: int  # a multiple of CHUNK


LIMITS = {"cpu": Limits(1024, 8192), "cuda": Limits(16_384, 16_384)}


@dataclass(frozen=True)
class Block:
    """Some queries, or the rows of a tile, on the device."""

    ids: Tensor  # (n,)
    images: Tensor  # (n, D)
    captions: Tensor  # (n, D)
    hashes: Tensor  # (rules, n) int64: equal where the unsigned ones are

    @cached_property
    def ordered(self) -> tuple[Tensor, Tensor]:
        """The hashes of each rule in order, and where each lies."""
        values, places = self.hashes.sort(dim=1)
        return values, places

    @cached_property
    def longest(self) -> float:
        """The largest norm, of images and captions."""
        return max(
            float(torch.linalg.vector_norm(v, dim=1, dtype=torch.float32).max()) for v in (self.images, self.captions)
        )


@dataclass(frozen=True)
class Measured:
    """n pairs of a query and a row, exactly."""

    query: Tensor  # (n,)
    row: Tensor  # (n,)
    image: Tensor  # (n,) cosine
    caption: Tensor  # (n,) cosine


@dataclass(frozen=True)
class Products:
    pairs: Candidates
    rule: Rule
    device: str

    def mine(self, queries: Queries) -> Supports:
        size = LIMITS[self.device].queries
        best = Supports.none(len(queries), self.rule.k)
        with full_precision():
            for first in range(0, len(queries), size):
                some = slice(first, first + size)
                self._mine(queries.part(some), best.part(some))
        return best

    def _mine(self, queries: Queries, best: Supports) -> None:
        """best: of these queries, changed in place."""
        asking = self._block(np.arange(len(queries)), queries.images, queries.captions, queries.hashes)
        for tile in self._tiles:
            floor = torch.from_numpy(best.caption_cosines[:, -1].copy()).to(self.device)
            found = self._measured(asking, tile, floor)
            best.add(*(column.numpy(force=True) for column in vars(found).values()))

    def _measured(self, queries: Block, tile: Block, floor: Tensor) -> Measured:
        """Those pairs that may be among the k best of their query. floor (Q,): the k-th caption cosine so far."""
        error = (queries.images.shape[1] + 4) * self._arithmetic.error * queries.longest * tile.longest
        captions = _products(queries.captions, tile.captions)
        captions[_barred(queries, tile, self.rule)] = -torch.inf
        floor = floor - error
        unknown = torch.nonzero(floor == -torch.inf)[:, 0]
        if len(unknown):
            some, others = captions[unknown], _products(queries.images[unknown], tile.images)
            floor[unknown] = self._kth(some.where(self._inside(others, -error), -torch.inf)).double() - 2 * error
            captions[unknown] = some.where(self._inside(others, error), -torch.inf)
        query, column = torch.nonzero((captions >= floor.float()[:, None]) & (captions > -torch.inf), as_tuple=True)
        if len(query) > GATHERED:
            near = self._inside(_products(queries.images, tile.images)[query, column], error)
            query, column = query[near], column[near]
        image = _exact(queries.images, tile.images, query, column)
        inside = self._inside(image, 0)
        query, column = query[inside], column[inside]
        caption = _exact(queries.captions, tile.captions, query, column)
        return Measured(query, tile.ids[column], image[inside], caption)

    def _inside(self, cosines: Tensor, margin: float) -> Tensor:
        """Whether they lie in the band made wider by a margin on both sides."""
        band = self.rule.band
        return (cosines >= band.lowest_cosine - margin) & (cosines <= band.highest_cosine + margin)

    def _kth(self, captions: Tensor) -> Tensor:
        """captions (Q, T) → (Q,): no more than the k-th largest. As many chunks hold a value at least as large as the
        k-th largest of their maxima."""
        filled = functional.pad(captions, (0, -captions.shape[1] % CHUNK), value=-torch.inf)
        maxima = filled.view(len(filled), CHUNK, -1).amax(dim=1)
        if maxima.shape[1] < self.rule.k:
            return maxima.new_full((len(maxima),), -torch.inf)
        smallest: Tensor = maxima.topk(self.rule.k, dim=1).values[:, -1]
        return smallest

    @cached_property
    def _arithmetic(self) -> Arithmetic:
        return MATRIX_UNITS if self.device == "cuda" else FLOAT32

    @property
    def _tiles(self) -> Iterable[Block]:
        """On a GPU that has room for all rows they stay there."""
        return self._resident or self._streamed()

    @cached_property
    def _resident(self) -> list[Block]:
        if self.device == "cpu" or self.pairs.num_bytes + WORKING > torch.cuda.mem_get_info()[0]:
            return []
        return list(self._streamed())

    def _streamed(self) -> Iterator[Block]:
        for tile in self.pairs.tiles(LIMITS[self.device].tile_rows):
            yield self._block(tile.ids, tile.images, tile.captions, tile.hashes.T)

    def _block(self, ids: Ids, images: Half, captions: Half, hashes: Hashes) -> Block:
        told = torch.from_numpy(np.ascontiguousarray(hashes).view(np.int64))
        dtype = self._arithmetic.dtype
        wide = [torch.from_numpy(half).to(self.device, dtype) for half in (images, captions)]
        return Block(torch.from_numpy(ids).to(self.device), wide[0], wide[1], told.to(self.device))


def _products(queries: Tensor, rows: Tensor) -> Tensor:
    out = torch.empty(len(queries), len(rows), device=rows.device)
    multiply(queries, rows, out)
    return out


def _exact(queries: Tensor, rows: Tensor, query: Tensor, column: Tensor) -> Tensor:
    """queries (Q, D), rows (T, D), query (n,), column (n,) → (n,) float64."""
    parts = zip(torch.split(query, MEASURED), torch.split(column, MEASURED), strict=True)
    return torch.cat([(queries[some].double() * rows[others].double()).sum(dim=1) for some, others in parts])


def _barred(queries: Block, tile: Block, rule: Rule) -> tuple[Tensor, Tensor]:
    """Query and column of the pairs that show the same picture, or, unless it is wanted, have the same caption."""
    equal = [
        _equal(queries, tile, name) for name in RULES if name != "phash" and (name != "caption" or not rule.own_caption)
    ]
    query, column = _equal(queries, tile, "phash")
    alike = _exact(queries.images, tile.images, query, column) >= SAME_IMAGE_COSINE
    equal.append((query[alike], column[alike]))
    return torch.cat([query for query, _ in equal]), torch.cat([column for _, column in equal])


def _equal(queries: Block, tile: Block, name: str) -> tuple[Tensor, Tensor]:
    """Query and column where the hashes of a rule are equal."""
    asked, (ordered, column) = queries.hashes[RULES.index(name)], (part[RULES.index(name)] for part in tile.ordered)
    first, end = torch.searchsorted(ordered, asked), torch.searchsorted(ordered, asked, right=True)
    count = end - first
    if name == "image_id":
        count[asked == NONE] = 0
    query = torch.arange(len(asked), device=asked.device).repeat_interleave(count)
    within = torch.arange(len(query), device=asked.device) - (count.cumsum(0) - count)[query]
    return query, column[first[query] + within]
