"""Rows, losses and time, stage by stage and source by source."""

from collections.abc import Iterator

import polars as pl
import polars.selectors as cs

from pipeline.reasons import Reason
from stages.report.root import BEFORE_THE_FILTER, TABLES, RunRoot, StageFiles

STEPS = {
    "ingest_rows": "urls",
    "download": "fetched",
    "embed": "scored",
    "filter_judge": "kept",
    "filter_duplicates": "compared",
    "corpus": "in the corpus",
    "index": "indexed",
    "interleaved": "in samples",
}
"""The stages that every pair passes, and what a pair is called that came through."""


OF_PICTURES = ("evaluation_sets", "captions", "evaluation_answers")
"""Their rejects are named pictures or questions, which have no source."""


def source_of(pair_id: str) -> pl.Expr:
    """pair_id: the name of a column."""
    return pl.col(pair_id).str.replace("-[^-]*$", "").alias("source")


def funnel(run: RunRoot) -> pl.DataFrame:
    """share: of the stage's rows; share_of_all: of the rows that the first stage read. Where pairs of other runs join
    this one's, the filter is the first stage of what follows."""
    rows = [_step(stage, outcome, run.stages[stage]) for stage, outcome in STEPS.items() if stage in run.stages]
    frame = pl.DataFrame(rows, schema=FUNNEL, orient="row")
    joined = run.crawls != [run]
    own_alone = pl.col("stage").is_in(BEFORE_THE_FILTER if joined else list(STEPS))
    return frame.with_columns(
        share=_ratio("rows_out", pl.col("rows_in")),
        share_of_all=_ratio("rows_out", pl.col("rows_in").first().over(own_alone)),
    )


FUNNEL = {
    "stage": pl.String,
    "outcome": pl.String,
    "shards": pl.Int64,  # planned
    "done": pl.Int64,
    "rows_in": pl.Int64,
    "lost": pl.Int64,
    "rows_out": pl.Int64,
}


def _step(stage: str, outcome: str, files: StageFiles) -> tuple[str, str, int, int, int, int, int]:
    rows_in, rows_out = (int(files.stats[name].sum()) for name in ("rows_in", "rows_out"))
    return stage, outcome, len(files.plan.shards), files.stats.height, rows_in, rows_in - rows_out, rows_out


def losses(run: RunRoot) -> pl.DataFrame:
    """A row a stage and reason, the commonest first: rows, share of the stage's rows, and the rows of each source."""
    of_pairs = {stage: files for stage, files in run.stages.items() if stage not in OF_PICTURES}
    by_source = [files.rejects().with_columns(source_of("pair_id"), stage=pl.lit(s)) for s, files in of_pairs.items()]
    per_source = pl.concat(by_source).group_by("stage", "reason", "source").len().collect(engine="streaming")
    wide = per_source.with_columns(source="of " + pl.col("source")).pivot(
        "source", index=["stage", "reason"], values="len", sort_columns=True
    )
    counted = pl.DataFrame(list(_losses(run)), schema=LOSSES, orient="row")
    return counted.join(wide, on=["stage", "reason"], how="left", maintain_order="left").fill_null(0)


LOSSES = {"stage": pl.String, "reason": pl.String, "rows": pl.Int64, "share": pl.Float64}


def _losses(run: RunRoot) -> Iterator[tuple[str, str, int, float]]:
    reasons = cs.by_name([reason.value for reason in Reason], require_all=False)  # an older root knew fewer
    for stage, files in run.stages.items():
        sums = files.stats.select(reasons.sum()).row(0, named=True)
        rows_in = int(files.stats["rows_in"].sum())
        for reason, rows in sorted(sums.items(), key=lambda item: -item[1]):
            if rows:
                yield stage, reason, rows, rows / rows_in


def sources(run: RunRoot) -> pl.DataFrame:
    """A row a source: how many of its pairs came through each stage that writes a table of them."""
    found = pl.DataFrame(schema={"source": pl.String})
    joined = run.crawls != [run]
    for stage in TABLES:
        if stage in run.stages and not (joined and stage == "ingest_rows"):  # the others' lists are not known here
            outcome = STEPS[stage]
            found = found.join(_by_source(run, stage, outcome), on="source", how="full", coalesce=True)
    return found.sort("source").fill_null(0)


def _by_source(run: RunRoot, stage: str, outcome: str) -> pl.DataFrame:
    rows = run.table(stage)
    if stage == "download":  # its table holds the failed rows too
        rows = rows.filter(pl.col("reason").is_null()).rename({"key": "pair_id"})
    return rows.group_by(source_of("pair_id")).agg(pl.len().cast(pl.Int64).alias(outcome)).collect(engine="streaming")


def work(run: RunRoot) -> pl.DataFrame:
    """A row a stage. seconds: that workers spent on its committed shards, summed; bytes: of its data files."""
    totals = [
        files.stats.select(pl.lit(stage).alias("stage"), pl.len().alias("shards"), pl.col(*WORK).sum())
        for stage, files in run.stages.items()
    ]
    has_rows = pl.when(pl.col("rows_in") > 0)
    return pl.concat(totals).with_columns(rows_per_s=has_rows.then(_ratio("rows_in", pl.col("seconds"))))


WORK = ("rows_in", "rows_out", "seconds", "bytes")


def _ratio(rows: str, of: pl.Expr) -> pl.Expr:
    """Null where there is nothing to divide by."""
    return pl.when(of > 0).then(pl.col(rows) / of)
