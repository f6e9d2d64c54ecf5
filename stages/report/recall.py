"""What index_report measured, at the number of probes and the re-rank depth that it chose."""

import json
from collections.abc import Mapping

import polars as pl

from pipeline.commits import Committed
from pipeline.recipe import Json
from stages.report.root import RunRoot

STAGE = "index_report"
RECALL = {
    "direction": pl.String,
    "k": pl.Int32,
    "nprobe": pl.Int32,
    "depth": pl.Int32,
    "recall": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "coverage": pl.Float64,
}


def only_shard(run: RunRoot, stage: str) -> Committed | None:
    """Of a stage that has one; None: it is not committed."""
    return run.stages[stage].committed()[0] if stage in run.stages else None


def read_json(shard: Committed, name: str) -> Mapping[str, Json]:
    with shard.open(name) as file:
        found: dict[str, Json] = json.load(file)
    return found


def recall(run: RunRoot) -> pl.DataFrame:
    """A row per direction, k, and depth (null: not re-ranked); no row where the index is not measured."""
    shard = only_shard(run, STAGE)
    if shard is None:
        return pl.DataFrame(schema=RECALL)
    chosen = read_json(shard, "tuned")
    with shard.open("report") as file:
        points = pl.read_parquet(file, columns=list(RECALL))
    tuned_to = [
        (pl.col("direction") == direction)
        & (pl.col("nprobe") == point["nprobe"])
        & (pl.col("depth").is_null() | (pl.col("depth") == point["depth"]))
        for direction, point in chosen["chosen"].items()
    ]
    return points.filter(pl.any_horizontal(tuned_to)).sort("direction", "k", "depth", nulls_last=False)
