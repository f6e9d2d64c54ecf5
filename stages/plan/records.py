"""What a root holds already: of every stage and source, the committed shards summed up."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

from pipeline.commits import STATS, StageFolder, resolve_folder
from pipeline.ledger import READERS, stats_row
from pipeline.parquet import read_table
from pipeline.reasons import Reason
from pipeline.recipe import Json

ALL = ""  # sources, where a stage's shards mix them
PREFILTERS = [reason.value for reason in Reason if reason.value.startswith("prefilter_")]


@dataclass(frozen=True)
class Done:
    """Committed shards. seconds: of the timed rows alone, that were made on the device that the recipe names."""

    shards: int = 0
    rows_in: int = 0
    rows_out: int = 0
    bytes: int = 0  # of data and rejects
    record_bytes: int = 0
    files: int = 0  # records too
    prefiltered: int = 0
    fetched_bytes: float = 0
    timed_shards: int = 0
    timed_rows: int = 0
    seconds: float = 0

    def __add__(self, other: "Done") -> "Done":
        return Done(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Done)))


@dataclass(frozen=True)
class StageDone:
    """A stage of a root. shards: planned, by source; None where the stage is not planned yet."""

    by_source: Mapping[str, Done]
    shards: Mapping[str, int] | None
    whole: bool

    @property
    def all(self) -> Done:
        return sum(self.by_source.values(), Done())


NOT_BEGUN = StageDone({}, None, whole=False)


def stage_done(root: str, stage: str, sources: Mapping[str, str], device: Json) -> StageDone:
    """sources: shard → source, of the stages that keep the shards of ingest_rows; a shard that is not named is ALL's.
    Raises InputError where a record cannot be read."""
    folder = resolve_folder(root, stage)
    plan = folder.plan()
    if plan is None:
        return NOT_BEGUN
    found: dict[str, Done] = {}
    for row in _rows(folder, [shard for shard, _ in plan.shards]):
        source = sources.get(row["shard"], ALL)
        found[source] = found.get(source, Done()) + _summed(row, timed=row["device"] in (None, device))
    planned: dict[str, int] = {}
    for shard, _ in plan.shards:
        planned[sources.get(shard, ALL)] = planned.get(sources.get(shard, ALL), 0) + 1
    return StageDone(found, planned, folder.manifest() is not None)


def sources_of_shards(root: str) -> dict[str, str]:
    """Shard → source, as ingest_rows planned it; empty before it is planned. A second pass mixes them: ALL."""
    plan = resolve_folder(root, "ingest_rows").plan()
    return {shard: params.get("source", ALL) for shard, params in plan.shards} if plan else {}


def _rows(folder: StageFolder, planned: Sequence[str]) -> Iterator[dict[str, Any]]:
    """pipeline.ledger.stats_row of every committed shard, with the bytes of its record and the device it was made on.
    Of a stage that is whole one record tells the device of all."""
    sizes = folder.store.list("commits")
    done = [shard for shard in planned if sizes.get(f"{shard}.json")]
    if folder.manifest() is not None and done:
        device = folder.record(done[0]).conditions.get("device")
        with folder.store.open(STATS) as file:
            rows = [(row, device) for row in read_table(file).to_pylist()]
    else:
        with ThreadPoolExecutor(READERS) as pool:
            rows = [(stats_row(r), r.conditions.get("device")) for r in pool.map(folder.record, done)]
    for row, device in rows:
        yield row | {"device": device, "record_bytes": sizes.get(f"{row['shard']}.json", 0)}


def _summed(row: Mapping[str, Any], *, timed: bool) -> Done:
    return Done(
        shards=1,
        rows_in=row["rows_in"],
        rows_out=row["rows_out"],
        bytes=sum(file["bytes"] for file in row["files"]),
        record_bytes=row["record_bytes"],
        files=len(row["files"]) + 1,
        prefiltered=sum(row[reason] for reason in PREFILTERS),
        fetched_bytes=dict(row["metrics"]).get("fetched_bytes", 0),
        timed_shards=1 if timed else 0,
        timed_rows=row["rows_in"] if timed else 0,
        seconds=row["seconds"] if timed else 0,
    )
