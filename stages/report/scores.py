"""The histogram of CLIP scores beside the thresholds that the filter set."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.recipe import Json
from stages.filter import FilterRecipe
from stages.report.counts import source_of
from stages.report.root import RunRoot

BINS = 200  # over the cosine's whole range, −1…1
EDGES = np.linspace(-1, 1, BINS + 1)
BELOW, ABOVE, LIMIT = "#c9ced6", "#3b6ea5", "#b03a2e"

Thresholds = Mapping[str, float | None]
"""Source → least score; None: whatever score is allowed."""


def thresholds(run: RunRoot) -> Thresholds:
    """Of every scored source, as the filter's plan has them; empty where nothing was judged."""
    if "filter_judge" not in run.stages:
        return {}
    settings = cast(dict[str, dict[str, Json]], run.stages["filter_judge"].plan.parts)["settings"]
    recipe = FilterRecipe.model_validate({name: settings[name] for name in ("defaults", "sources")})
    found = run.table("embed").select(source_of("pair_id").unique()).collect()["source"]
    return {source: recipe.thresholds(source).min_clip_score for source in sorted(found)}


def histogram(run: RunRoot) -> pl.DataFrame:
    """source, bin (0 … BINS−1, bin 0 begins at −1) and rows."""
    binned = ((pl.col("clip_score").cast(pl.Float64) + 1) / 2 * BINS).floor().clip(0, BINS - 1).cast(pl.Int64)
    rows = run.table("embed").group_by(source_of("pair_id"), binned.alias("bin")).agg(pl.len().alias("rows"))
    return rows.sort("source", "bin").collect(engine="streaming")


def histogram_picture(counted: pl.DataFrame, limits: Thresholds) -> bytes:
    """A PNG with one panel a threshold, of the sources that have it. counted: at least one row."""
    from matplotlib.figure import Figure

    panels = _panels(counted, limits)
    figure = Figure(figsize=(9, 0.5 + 2.2 * len(panels)), dpi=130, layout="constrained")
    every_axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (limit, sources) in zip(every_axes, panels.items(), strict=True):
        _draw(axes, _rows_by_bin(counted.filter(pl.col("source").is_in(sources))), limit)
        axes.set_title(", ".join(sources), loc="left", fontsize=10)
    axes.set_xlim(EDGES[counted["bin"].to_numpy().min()] - 0.02, EDGES[counted["bin"].to_numpy().max() + 1] + 0.02)
    axes.set_xlabel("clip_score")
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def _rows_by_bin(counted: pl.DataFrame) -> npt.NDArray[np.float64]:
    rows = np.zeros(BINS)
    np.add.at(rows, counted["bin"].to_numpy(), counted["rows"].to_numpy())
    return rows


def _draw(axes: Any, rows: npt.NDArray[np.float64], limit: float | None) -> None:
    colours = [BELOW if limit is not None and edge < limit else ABOVE for edge in EDGES[:-1]]
    axes.bar(EDGES[:-1], rows, 2 / BINS, align="edge", color=colours)
    axes.set_ylabel("pairs")
    axes.spines[["top", "right"]].set_visible(False)
    if limit is not None:
        axes.axvline(limit, color=LIMIT, linewidth=1.5, label=f"min_clip_score {limit:g}")
        axes.legend(frameon=False)


def _panels(counted: pl.DataFrame, limits: Thresholds) -> Mapping[float | None, Sequence[str]]:
    panels: dict[float | None, list[str]] = {}
    for source in counted["source"].unique().sort():
        panels.setdefault(limits.get(source), []).append(source)
    return panels


def meaning(limits: Thresholds) -> str:
    """What the scores decided, to stand beside the histogram."""
    if not limits:
        return "Nothing has been judged yet, so no threshold is drawn."
    free = [source for source, limit in limits.items() if limit is None]
    if len(free) == len(limits):
        return "min_clip_score is null for every source: no pair was kept or rejected for its score."
    told = "Pairs left of the line were rejected for their score, unless another rule had come first."
    return f"{told} Of {', '.join(free)} any score is allowed." if free else told
