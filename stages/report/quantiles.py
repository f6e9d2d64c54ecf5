"""How large, how slow and how well described the pairs are."""

from dataclasses import dataclass

import polars as pl

from stages.report.root import RunRoot

PERCENTS = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True)
class Measure:
    name: str
    unit: str
    stage: str  # whose table it is read from
    value: pl.Expr  # null: the row has none


MEASURES = (
    Measure("clip_score", "cosine", "embed", pl.col("clip_score")),
    Measure("short side as fetched", "px", "download", pl.min_horizontal("original_width", "original_height")),
    Measure("short side as stored", "px", "download", pl.min_horizontal("width", "height")),
    Measure("picture as fetched", "bytes", "download", pl.when(pl.col("reason").is_null()).then(pl.col("bytes"))),
    Measure("picture as stored", "bytes", "download", pl.col("image_bytes")),
    Measure("time to fetch, or to fail", "ms", "download", pl.col("fetch_ms")),
)


def quantiles(run: RunRoot) -> pl.DataFrame:
    """A row a measure that some pair has; between two values linearly, as numpy does."""
    rows = [_quantiles(run, measure) for measure in MEASURES]
    return pl.concat(rows).filter(pl.col("pairs") > 0)


def _quantiles(run: RunRoot, measure: Measure) -> pl.DataFrame:
    value = measure.value.cast(pl.Float64)
    asked = (
        pl.lit(measure.name).alias("measure"),
        pl.lit(measure.unit).alias("unit"),
        value.count().alias("pairs"),
        *(value.quantile(percent / 100, "linear").alias(f"{percent}%") for percent in PERCENTS),
    )
    return run.table(measure.stage).select(asked).collect(engine="streaming")
