"""Which evaluation sets the pairs meet: set by set, as the filter's tables of hits have it."""

import polars as pl

from pipeline.schemas import EVALUATION_HITS
from stages.report.counts import source_of
from stages.report.root import RunRoot, scan

SETS = {"set": pl.String, "pictures": pl.Int64}


def evaluation_sets(run: RunRoot) -> pl.DataFrame:
    """A row a set: its pictures, those that some pair shows, the pairs that left for it, and those of each source. A
    pair may show pictures of two sets, and counts in both; of several pictures of one set the nearest counts."""
    if "evaluation_sets" not in run.stages:
        return pl.DataFrame(schema=SETS)
    stage, judged = run.stages["evaluation_sets"], run.stages.get("filter_judge")
    names = {shard: params["set"] for shard, params in stage.plan.shards}
    sizes = [(names[shard.shard], shard.record.rows_out) for shard in stage.committed()]
    paths = [str(shard.path("hits")) for shard in judged.committed()] if judged else []
    hits = scan(paths, EVALUATION_HITS).rename({"evaluation_set": "set"}).with_columns(source_of("pair_id"))
    met = hits.group_by("set").agg(pictures_met=pl.col("name").n_unique(), pairs=pl.len()).collect(engine="streaming")
    by_source = hits.group_by("set", source="of " + pl.col("source")).len().collect(engine="streaming")
    counted = pl.DataFrame(sizes, schema=SETS, orient="row")
    for more in (met, by_source.pivot("source", index="set", values="len", sort_columns=True)):
        counted = counted.join(more, on="set", how="left", maintain_order="left")
    return counted.with_columns(pl.exclude("set").fill_null(0).cast(pl.Int64))
