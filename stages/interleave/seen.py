"""What the probe saw of the band, for a person and for whoever decides: sizes with intervals, the histogram, costs."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.commits import Whole
from pipeline.intervals import interval
from pipeline.recipe import Section
from pipeline.schemas import BAND
from stages.interleave.band import LARGEST, Band, Metric
from stages.interleave.recipe import InterleaveRecipe

EngineName = Literal["image", "caption", "products"]
"""The sweep led by images or by captions, or all products."""

STEP_NS = {"compared": 3.0, "by_lead": 12.0, "by_other": 52.0, "measured": 31.0, "in_band": 1000.0}
PRODUCTS_NS = 40.0
"""Measured at width 512 on one core: what a pair costs that comes to a step of the sweep, or all its products."""

WANTED = 25  # candidates a support that the advised bounds leave on average
SHOWN = 20  # bars of the histogram
COUNTED = ("pairs", "squares")  # of COSINES
ONLY = "000000"  # shard of the stages that have one

Floats = npt.NDArray[np.float64]


class Interval(Section):
    """A share, or a mean, with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


class BandSize(Section):
    """Pairs a query in the band by one reading of a distance."""

    mean: Interval
    share: float  # of all pairs
    p5: float
    median: float
    p95: float


class Seen(Section):
    band: tuple[Metric, float, float]
    supports: int
    queries: int
    rows: int  # pairs that each was compared with
    starved: Interval  # share of the queries with fewer candidates than supports
    sizes: dict[Metric, BandSize]
    cosines: list[int]  # pairs by image cosine, in even bins from −1 to 1
    spreads: list[float]  # of each bin: half the 95 % interval of a query's mean number
    cost_ns: dict[EngineName, float]  # of one pair of a query and a row, modelled

    @classmethod
    def of_probe(cls, probe: Whole, recipe: InterleaveRecipe) -> Self:
        shards = [probe.read(shard) for shard in probe.shards]
        sizes = pa.concat_tables([shard.table("band_sizes") for shard in shards])
        histograms = [shard.table("cosines") for shard in shards]
        cosines, squares = (np.sum([part[name].to_numpy() for part in histograms], axis=0) for name in COUNTED)
        steps = [shard.json("steps") for shard in shards]
        rows = int(cosines.sum()) // sizes.num_rows
        return cls(
            band=(recipe.metric, recipe.lo, recipe.hi),
            supports=recipe.supports,
            queries=sizes.num_rows,
            rows=rows,
            starved=_share(sizes["found"].to_numpy() < recipe.supports),
            sizes={metric: _size(sizes[metric].to_numpy(), rows) for metric in LARGEST},
            cosines=cosines.tolist(),
            spreads=_half_interval(cosines / sizes.num_rows, squares / sizes.num_rows, sizes.num_rows).tolist(),
            cost_ns=_costs({lead: np.sum([counted[lead] for counted in steps], axis=0) for lead in steps[0]}),
        )

    @classmethod
    def read(cls, gate: Whole) -> Self:
        return cls.model_validate(gate.read(ONLY).json("seen"))

    @property
    def cheapest(self) -> EngineName:
        return min(self.cost_ns, key=self.cost_ns.__getitem__)

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """(bins + 1,) of `cosines`."""
        return np.linspace(-1, 1, len(self.cosines) + 1)

    def table(self) -> pa.Table:
        """Schema BAND."""
        mined = Band(*self.band)
        bands = {metric: replace(mined, metric=metric) for metric in self.sizes}
        rows = [
            {
                "reading": metric,
                "mined": band == mined,
                "lo": band.lo,
                "hi": band.hi,
                "lowest_cosine": band.lowest_cosine,
                "highest_cosine": band.highest_cosine,
                "pairs": self.sizes[metric].mean.value,
                "low": self.sizes[metric].mean.low,
                "high": self.sizes[metric].mean.high,
                **self.sizes[metric].model_dump(exclude={"mean"}),
            }
            for metric, band in bands.items()
        ]
        return pa.Table.from_pylist(rows, schema=BAND)

    def __str__(self) -> str:
        metric, lo, hi = self.band
        lines = [f"{self.queries:,} queries, each with {self.rows:,} pairs: distances of images as {metric} reads them"]
        lines[0] += " (bars are logarithmic, ▒ is in the band)"
        lines += self._bars()
        for name in LARGEST:
            size, told = self.sizes[name], " ← interleave.metric" if name == metric else ""
            lines.append(
                f"in [{lo}, {hi}] as {name:<10} {size.mean} pairs a query, {size.share:.3%} of all; 5 % of the queries "
                f"have at most {size.p5:,.0f}, half {size.median:,.0f}, 95 % {size.p95:,.0f}{told}"
            )
        lines.append(self.starving)
        costs = ", ".join(f"{name} {cost:.1f}" for name, cost in self.cost_ns.items())
        hours = (self.rows + 1) * self.rows * min(self.cost_ns.values()) / 3.6e12
        lines.append(f"modelled cost on a core: ns a pair {costs}; of all {self.rows + 1:,} queries {hours:,.2f} hours")
        return "\n".join(lines)

    @property
    def starving(self) -> str:
        low, value, high = (f"{share:.2%}" for share in (self.starved.low, self.starved.value, self.starved.high))
        return f"{value} ({low} to {high}) of the queries starve, with fewer than {self.supports} candidates"

    def advice(self) -> str:
        """Bounds that leave enough candidates on average, by the histogram."""
        metric, lo, hi = self.band
        wanted = max(min(WANTED * self.supports, self.rows // 2), self.supports)
        distances = Band(metric, 0, 1).distances(self.edges)[::-1]  # ascending
        near, far, pairs = distances[:-1], distances[1:], np.array(self.cosines[::-1]) / self.queries
        farther = np.flatnonzero(np.cumsum(np.where(near >= lo, pairs, 0)) >= wanted)
        nearer = np.flatnonzero(np.cumsum(np.where(far <= hi, pairs, 0)[::-1])[::-1] >= wanted)
        if len(farther) and (highest := math.ceil(far[farther[0]] * 100) / 100) > hi:
            advised = f"With interleave.hi at {highest} a query has {wanted} candidates on average"
        elif len(farther) or not len(nearer):
            size = self.sizes[metric]
            advised = (
                f"On average a query has {size.mean.value:,.0f} pairs in the band, but half have at most "
                f"{size.median:,.0f}: widen the band"
            )
        else:
            lowest = math.floor(near[nearer[-1]] * 100) / 100
            advised = f"With interleave.lo at {lowest} a query has {wanted} candidates on average"
        return f"{advised}. Bounds are set in another root; or raise interleave.max_starved in this one."

    def _bars(self) -> list[str]:
        metric, lo, hi = self.band
        distances = Band(metric, 0, 1).distances(self.edges)
        counts, edges = np.histogram(
            (distances[:-1] + distances[1:]) / 2, bins=SHOWN, range=(0, float(distances.max())), weights=self.cosines
        )
        longest = np.log1p(counts.max())
        return [
            f"{low:5.2f} {'▒' if low < hi and high > lo else '░'} "
            f"{'█' * round(50 * np.log1p(count) / longest)} {count / self.queries:,.1f} a query"
            for low, high, count in zip(edges, edges[1:], counts, strict=False)
            if count
        ]


def _costs(passed: Mapping[EngineName, npt.NDArray[np.int64]]) -> dict[EngineName, float]:
    return {**{lead: sweep_ns(counts) for lead, counts in passed.items()}, "products": PRODUCTS_NS}


def sweep_ns(passed: npt.NDArray[np.int64]) -> float:
    """Modelled ns of a pair of a query and a row. passed: how many came to each step of the sweep."""
    return float(passed @ list(STEP_NS.values()) / passed[0])


def _size(sizes: npt.NDArray[np.int64], rows: int) -> BandSize:
    p5, median, p95 = np.quantile(sizes, [0.05, 0.5, 0.95]).tolist()
    return BandSize(mean=_mean(sizes), share=float(sizes.mean() / rows), p5=p5, median=median, p95=p95)


def _mean(values: npt.NDArray[np.int64]) -> Interval:
    mean, square = values.mean(keepdims=True), (values.astype(np.float64) ** 2).mean(keepdims=True)
    spread = float(_half_interval(mean, square, len(values))[0])
    return Interval(value=float(mean[0]), low=max(float(mean[0]) - spread, 0), high=float(mean[0]) + spread)


def _half_interval(mean: Floats, square: Floats, count: int) -> Floats:
    """Of some means of so many values, and of the means of their squares: half the 95 % interval."""
    half: Floats = 1.96 * np.sqrt(np.maximum(square - mean**2, 0) / count)
    return half


def _share(marks: npt.NDArray[np.bool_]) -> Interval:
    share = float(marks.mean())
    low, high = interval(share, len(marks))
    return Interval(value=share, low=low, high=high)
