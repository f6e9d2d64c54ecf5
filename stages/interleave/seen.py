"""What the probe saw of the band, for a person and for whoever decides: sizes with intervals, the histogram, costs."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.commits import Whole
from pipeline.recipe import Section
from pipeline.schemas import BAND
from stages.index import interval
from stages.interleave.band import LARGEST, Band, Metric
from stages.interleave.recipe import InterleaveRecipe

EngineName = Literal["image", "caption", "products"]
"""The sweep led by images or by captions, or all products."""

STEP_NS = {"compared": 1.9, "by_lead": 12.0, "by_other": 90.0, "measured": 60.0, "in_band": 200.0}
PRODUCTS_NS = 35.0
"""Measured at width 512 on one core: what a pair costs that comes to a step of the sweep, or all its products."""

WANTED = 25  # candidates a support that the advised bounds leave on average
SHOWN = 20  # bars of the histogram
ONLY = "000000"  # shard of the stages that have one


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
    cost_ns: dict[EngineName, float]  # of one pair of a query and a row, modelled

    @classmethod
    def of_probe(cls, probe: Whole, recipe: InterleaveRecipe) -> Self:
        shards = [probe.read(shard) for shard in probe.shards]
        sizes = pa.concat_tables([shard.table("band_sizes") for shard in shards])
        cosines = np.sum([shard.table("cosines")["pairs"].to_numpy() for shard in shards], axis=0)
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
        lines += self._bars()
        for name in LARGEST:
            size = self.sizes[name]
            told = " ← interleave.metric" if name == metric else ""
            lines.append(
                f"in [{lo}, {hi}] as {name:<10} {size.mean} pairs a query, {size.share:.3%} of all; 5 % of the queries "
                f"have at most {size.p5:,.0f}, half {size.median:,.0f}, 95 % {size.p95:,.0f}{told}"
            )
        lines.append(f"starved, with fewer than {self.supports} candidates: {self.starved} of the queries")
        costs = ", ".join(f"{name} {cost:.1f}" for name, cost in self.cost_ns.items())
        return "\n".join([*lines, f"modelled cost on a core, ns a pair: {costs}"])

    def advice(self) -> str:
        """Bounds that leave enough candidates on average, by the histogram."""
        metric, lo, _ = self.band
        distances = Band(metric, 0, 1).distances(self.edges)[::-1]  # ascending
        farther = np.cumsum(np.where(distances[1:] > lo, self.cosines[::-1], 0)) / self.queries
        enough = np.flatnonzero(farther >= WANTED * self.supports)
        if not len(enough):
            return f"Nearly all pairs are nearer than interleave.lo {lo}: lower it, in another root."
        hi = math.ceil(distances[1:][enough[0]] * 100) / 100
        return (
            f"With interleave.hi at {hi} a query has {WANTED * self.supports} candidates on average. Bounds are set in "
            "another root; or raise interleave.max_starved in this one."
        )

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
    costs: dict[EngineName, float] = {
        lead: float(counts @ list(STEP_NS.values()) / counts[0]) for lead, counts in passed.items()
    }
    return {**costs, "products": PRODUCTS_NS}


def _size(sizes: npt.NDArray[np.int64], rows: int) -> BandSize:
    p5, median, p95 = np.quantile(sizes, [0.05, 0.5, 0.95]).tolist()
    return BandSize(mean=_mean(sizes), share=float(sizes.mean() / rows), p5=p5, median=median, p95=p95)


def _mean(values: npt.NDArray[np.int64]) -> Interval:
    mean, spread = float(values.mean()), 1.96 * float(values.std()) / math.sqrt(len(values))
    return Interval(value=mean, low=max(mean - spread, 0), high=mean + spread)


def _share(marks: npt.NDArray[np.bool_]) -> Interval:
    share = float(marks.mean())
    low, high = interval(share, len(marks))
    return Interval(value=share, low=low, high=high)
