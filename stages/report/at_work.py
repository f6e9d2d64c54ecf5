"""How a run that is at work gets on, as its driver last said in status.json: no record is read for it."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import polars as pl

from pipeline.progress import clock
from pipeline.status import StageStatus, Status

Rows = Callable[[StageStatus], Iterator[tuple[object, ...]]]

SLOW = 3.0  # times the median of its stage: what makes a running shard a straggler
SHOWN = 20
SILENT_S = 300  # a driver that ends a stage of 75,000 shards on an object store is busy for minutes
LEADING = 3


def said(status: Status) -> str:
    who = f"process {status.pid} on {status.host}"
    age = max(0, (datetime.now(UTC) - status.written).total_seconds())  # two machines, two clocks
    if status.ended:
        return f"No driver is at work: {who} ended at {status.written:%F %T} UTC."
    if age > SILENT_S:
        return f"{who} was last heard of {clock(age)} ago; if it is dead, the same command continues its run."
    return f"{who} is at work, and said this {age:.0f} s ago."


def progress(status: Status) -> dict[str, pl.DataFrame]:
    """By title; rates are of the last minutes, rows and shares of the shards that this driver made."""
    failed = {"failed": _table(status, _failed, FAILED)}
    if status.ended:
        return failed
    return {
        "progress": _table(status, _line, PROGRESS),
        "leading reasons": _table(status, _reasons, REASONS),
        "stragglers": _table(status, _stragglers, STRAGGLERS),
        **failed,
    }


def _table(status: Status, rows_of: Rows, schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    return pl.DataFrame([row for stage in status.stages for row in rows_of(stage)], schema=schema, orient="row")


PROGRESS = {
    "stage": pl.String,
    "shards": pl.Int64,  # planned
    "done": pl.Int64,
    "running": pl.Int64,
    "failed": pl.Int64,
    "rows_in": pl.Int64,
    "rows_out": pl.Int64,
    "share": pl.Float64,
    "rows_per_s": pl.Float64,
    "time_left": pl.String,  # h:mm:ss
}


def _line(stage: StageStatus) -> Iterator[tuple[object, ...]]:
    yield (
        stage.stage,
        stage.shards,
        stage.done,
        len(stage.running),
        len(stage.failed),
        stage.rows_in,
        stage.rows_out,
        stage.rows_out / stage.rows_in if stage.rows_in else None,
        stage.rows_per_s if stage.rows_in else None,
        clock(stage.eta_s) if stage.eta_s and stage.done < stage.shards else None,
    )


REASONS = {"stage": pl.String, "reason": pl.String, "rows": pl.Int64, "share": pl.Float64}


def _reasons(stage: StageStatus) -> Iterator[tuple[object, ...]]:
    for reason, rows in sorted(stage.rejects.items(), key=lambda item: -item[1])[:LEADING]:
        yield stage.stage, reason, rows, rows / stage.rows_in


STRAGGLERS = {"stage": pl.String, "shard": pl.String, "seconds": pl.Float64, "typical_s": pl.Float64}


def _stragglers(stage: StageStatus) -> Iterator[tuple[object, ...]]:
    """Longest first. seconds: since the shard was handed out, waiting for a worker included; typical_s: the median."""
    if stage.typical_s is None:
        return
    for shard, seconds in sorted(stage.running.items(), key=lambda item: -item[1])[:SHOWN]:
        if seconds > SLOW * stage.typical_s:
            yield stage.stage, shard, seconds, stage.typical_s


FAILED = {"stage": pl.String, "shard": pl.String, "cause": pl.String}


def _failed(stage: StageStatus) -> Iterator[tuple[object, ...]]:
    for shard, cause in stage.failed.items():
        yield stage.stage, shard, cause
