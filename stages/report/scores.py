"""The histogram of CLIP scores beside the thresholds that the filter set."""

import io
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import polars as pl

from pipeline.recipe import Json
from stages.filter import FilterRecipe
from stages.report.counts import source_of
from stages.report.root import RunRoot

BINS = 200  # over the cosine's whole range, −1…1
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
    low, high = int(counted["bin"].min()) - 2, int(counted["bin"].max()) + 3  # type: ignore[arg-type]
    for number, (limit, sources) in enumerate(panels.items()):
        axes = figure.add_subplot(len(panels), 1, number + 1)
        rows = np.zeros(BINS)
        for _, place, found in counted.filter(pl.col("source").is_in(sources)).iter_rows():
            rows[place] += found
        edges = np.linspace(-1, 1, BINS + 1)
        is_below = edges[:-1] < (-1 if limit is None else limit)
        axes.bar(edges[:-1], rows, 2 / BINS, align="edge", color=np.where(is_below, BELOW, ABOVE))
        axes.set_xlim(edges[max(low, 0)], edges[min(high, BINS)])
        axes.set_ylabel("pairs")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(", ".join(sources), loc="left", fontsize=10)
        if limit is not None:
            axes.axvline(limit, color=LIMIT, linewidth=1.5, label=f"min_clip_score {limit:g}")
            axes.legend(frameon=False)
    axes.set_xlabel("clip_score")
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def _panels(counted: pl.DataFrame, limits: Thresholds) -> Mapping[float | None, Sequence[str]]:
    panels: dict[float | None, list[str]] = {}
    for source in counted["source"].unique().sort():
        panels.setdefault(limits.get(source), []).append(source)
    return panels
