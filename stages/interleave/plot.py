"""What the probe saw, and what became of it, as pictures."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.interleave.band import LARGEST, Band, Metric
from stages.interleave.seen import Seen

IN_BAND, OUTSIDE = "#3b6ea5", "#c9ced6"
READINGS: Mapping[Metric, str] = {"l2": "#3b6ea5", "l2_squared": "#d98a29", "cosine": "#5b8c5a"}
STEP = 0.01  # of a distance: what the height of the histogram counts pairs in

Histogram = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def save_probe_plot(seen: Seen, sizes: pa.Table, path: Path) -> None:
    """Distances of images with the band, and how many pairs are in the bands of the queries. sizes: BAND_SIZES."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), layout="constrained")
    distances, in_band = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_distances(distances, seen)
    _draw_sizes(in_band, sizes, seen)
    figure.suptitle(f"{seen.queries:,} queries, each compared with {seen.rows:,} pairs", fontsize=11)
    figure.savefig(path, dpi=120)


def _draw_distances(axes: Any, seen: Seen) -> None:
    """As many pairs as a query has in every STEP of the distance: bins that are even in the cosine are not so here."""
    metric, lo, hi = seen.band
    mined = Band(metric, lo, hi)
    edges = mined.distances(seen.edges)[::-1]
    heights, spreads = (
        np.array(counts[::-1]) * STEP / np.diff(edges)
        for counts in (np.array(seen.cosines) / seen.queries, seen.spreads)
    )
    lowest = heights[heights > 0].min() / 2
    axes.stairs(np.maximum(heights, lowest), edges, baseline=lowest, fill=True, color=OUTSIDE)
    for limit in (heights - spreads, heights + spreads):
        axes.stairs(np.maximum(limit, lowest), edges, baseline=None, color="#7d8794", linewidth=0.7)
    axes.axvspan(lo, min(hi, LARGEST[metric]), color=IN_BAND, alpha=0.25, linewidth=0)
    for place, (reading, size) in enumerate(seen.sizes.items()):
        band = replace(mined, metric=reading)
        ends = mined.distances(np.array([band.highest_cosine, max(band.lowest_cosine, -1)]))
        told = f"[{lo}, {hi}] as {reading}: {size.mean} pairs a query"
        height = 1.04 + 0.03 * place  # above the axes, whose height is 1
        axes.plot(
            ends,
            [height, height],
            color=READINGS[reading],
            linewidth=5,
            solid_capstyle="butt",
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            label=told + (" ← mined" if reading == metric else ""),
        )
    axes.set_yscale("log")
    axes.set_ylim(bottom=lowest)
    axes.set_xlim(0, edges[:-1][heights > 0].max() + 0.05)
    axes.set_xlabel(f"distance of two images, as {metric} reads it")
    axes.set_ylabel(f"pairs of a query, in each {STEP} of the distance")
    axes.legend(fontsize=8, loc="lower right", framealpha=0.9)
    _unbox(axes)


def _draw_sizes(axes: Any, sizes: pa.Table, seen: Seen) -> None:
    for reading, colour in READINGS.items():
        axes.ecdf(sizes[reading].to_numpy(), color=colour, label=reading)
    axes.axvline(seen.supports, color="black", linewidth=0.8, linestyle=":", label=f"{seen.supports} supports")
    axes.set_xscale("symlog", linthresh=1, linscale=0.3)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(left=0)
    axes.set_xlabel("pairs in the band")
    axes.set_ylabel("share of the queries that have no more")
    axes.grid(color="#e5e8ec", linewidth=0.6)
    axes.legend(fontsize=8)
    _unbox(axes)


def save_supports_plot(similarities: Histogram, distances: Histogram, uses: Histogram, band: Band, path: Path) -> None:
    """similarities (k, bins) of captions from −1 to 1, distances (k, bins) of images over the band: supports by rank.
    uses (n,): how many pairs support 0, 1 … samples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.5), layout="constrained")
    by_caption, by_image, by_use = figure.subplots(1, 3)
    _draw_similarities(by_caption, similarities)
    edges = np.linspace(band.lo, band.hi, distances.shape[1] + 1)
    by_image.stairs(distances.sum(axis=0), edges, fill=True, color=IN_BAND)
    by_image.set_xlabel(f"distance of the images of a query and a support, as {band.metric} reads it")
    by_image.set_ylabel("supports")
    _unbox(by_image)
    _draw_uses(by_use, uses)
    figure.savefig(path, dpi=120)


def _draw_similarities(axes: Any, counts: Histogram) -> None:
    from matplotlib import colormaps

    edges = np.linspace(-1, 1, counts.shape[1] + 1)
    shades = colormaps["viridis"](np.linspace(0, 0.85, len(counts)))
    for rank, (row, shade) in enumerate(zip(counts, shades, strict=True), start=1):
        axes.stairs(row, edges, color=shade, linewidth=1.4, label=f"support {rank}")
    there = np.flatnonzero(counts.sum(axis=0))
    if len(there):
        axes.set_xlim(edges[there[0]], edges[there[-1] + 1] + 0.01)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("cosine of the captions of a query and a support")
    axes.set_ylabel("supports")
    axes.legend(fontsize=8, loc="upper left")
    _unbox(axes)


def _draw_uses(axes: Any, uses: Histogram) -> None:
    axes.set_title(f"{uses[0] / uses.sum():.1%} of the pairs support none", fontsize=10)
    if len(uses) == 1:  # nothing that a logarithm could show
        axes.set_axis_off()
        return
    at_least = uses[::-1].cumsum()[::-1] / uses.sum()
    axes.plot(np.arange(1, len(uses)), at_least[1:], ".-", color=IN_BAND, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(color="#e5e8ec", linewidth=0.6)
    axes.set_xlabel("samples that a pair supports")
    axes.set_ylabel("share of the pairs that support so many or more")
    _unbox(axes)


def _unbox(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
