"""Mining on a processor core: a short product bounds every pair of a query and a row, and what a bound cannot exclude
is looked at closer while the rows are in the cache.

Tile by tile of rows, for all queries at hand:
1. the bound of one side, the lead, for every query and row of the tile: one matrix product of width 64;
2. which rows reach the query's floor: the band's lowest image cosine, or the caption cosine of its k-th support so far;
3. of these, which reach the other side's floor by the other side's bound;
4. the rest is measured in float32, and what that leaves in doubt or would accept, in float64, which is exact.
A floor is lowered by the proven error of whatever is compared with it, so no step loses anything, and what stays is
exact: the result depends on neither lead, nor axes, nor tiles.
Shapes: Q queries, T rows of a tile, D width, k supports, rules as the leakage rules count.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from pipeline.arithmetic import FLOAT32, full_precision
from stages.interleave.axes import Axes, Single, longest, rounding
from stages.interleave.kernel import STEPS, look_closer
from stages.interleave.pairs import Candidates
from stages.interleave.supports import Half, Queries, Rule, Supports

Lead = Literal["image", "caption"]
LEADS: tuple[Lead, ...] = get_args(Lead)
TILE_ROWS, QUERIES = 1024, 256  # their bounds, 1 MiB, stay in the cache until they are compared


@dataclass(frozen=True)
class Side:
    """Images, or captions, of some queries or rows."""

    wide: Single  # (n, D)
    bound: Single  # (n, A + 3)

    @cached_property
    def longest(self) -> tuple[float, float]:
        """Norms of the longest row of each."""
        return longest(self.bound), longest(self.wide)


@dataclass(frozen=True)
class Sweep:
    pairs: Candidates
    rule: Rule
    image_axes: Axes
    caption_axes: Axes
    lead: Lead

    def mine(self, queries: Queries) -> Supports:
        return self.count(queries)[0]

    def count(self, queries: Queries) -> tuple[Supports, npt.NDArray[np.int64]]:
        """And how many pairs came to each step, as kernel.STEPS names them: the sweep's cost, told without a clock."""
        best, passed = Supports.none(len(queries), self.rule.k), np.zeros(len(STEPS), np.int64)
        if not len(queries):
            return best, passed  # a task of other sources: the rows are not read in vain
        hashes = np.ascontiguousarray(queries.hashes.T)
        images, captions = self._sides(queries.images, queries.captions, "left")
        with full_precision():
            for tile in self.pairs.tiles(TILE_ROWS):
                row_images, row_captions = self._sides(tile.images, tile.captions, "right")
                errors = np.array([*_errors(images, row_images), *_errors(captions, row_captions)])
                lead, row_lead = (images, row_images) if self.lead == "image" else (captions, row_captions)
                rows = (row_images.wide, row_images.bound, row_captions.wide, row_captions.bound, tile.hashes, tile.ids)
                for some, bounds in _bounds(lead.bound, row_lead.bound):
                    look_closer(
                        bounds,
                        self.lead == "image",
                        (
                            images.wide[some],
                            images.bound[some],
                            captions.wide[some],
                            captions.bound[some],
                            hashes[some],
                        ),
                        rows,
                        errors,
                        (self.rule.band.lowest_cosine, self.rule.band.highest_cosine),
                        self.rule.own_caption,
                        (best.rows[some], best.image_cosines[some], best.caption_cosines[some]),
                        passed,
                    )
        return best, passed

    def _sides(self, images: Half, captions: Half, side: Literal["left", "right"]) -> tuple[Side, Side]:
        wide_images, wide_captions = (torch.from_numpy(half).float().numpy() for half in (images, captions))
        return (
            Side(wide_images, self.image_axes.bound(wide_images, side)),
            Side(wide_captions, self.caption_axes.bound(wide_captions, side)),
        )


def _errors(queries: Side, rows: Side) -> tuple[float, float]:
    """Of the bounds, and of float32 products, of these queries and rows."""
    (bound, wide), (row_bound, row_wide) = queries.longest, rows.longest
    return rounding(rows.bound.shape[1], bound * row_bound), rows.wide.shape[1] * FLOAT32.error * wide * row_wide


def _bounds(queries: Single, rows: Single) -> Iterator[tuple[slice, Single]]:
    """Some queries at a time, and the products of their bounds with all rows'; valid until the next."""
    right, room = torch.from_numpy(rows.T), torch.empty(QUERIES * len(rows))
    for first in range(0, len(queries), QUERIES):
        some = slice(first, first + QUERIES)
        left = torch.from_numpy(queries[some])
        products = room[: len(left) * len(rows)].view(len(left), len(rows))
        torch.mm(left, right, out=products)
        yield some, products.numpy()
