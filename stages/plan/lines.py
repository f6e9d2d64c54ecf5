"""What every stage has done and has still to do, source by source, as far as its shards keep their sources apart."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Any

from pipeline.stage import Stage
from stages.plan.figures import NOTHING, Figure, measured, total
from stages.plan.job import Job
from stages.plan.lists import SourceRows, rows_of_sources
from stages.plan.records import ALL, NOT_BEGUN, Done, StageDone, sources_of_shards, stage_done
from stages.plan.stated import Rates, has_prefilter, index_of, stated_prefilter, stated_rates

BY_SOURCE = ("ingest_rows", "download", "embed", "filter_judge")
"""Stages whose shards are those of ingest_rows, each of one source."""
PASSES = ("ingest_rows", "download", "embed", "filter_judge", "filter_duplicates")
"""Stages in which rows are lost."""
ADDED_AT_ONCE, ADD_TASKS, LEAST_ADDED = 1_000_000, 16, 50_000
PARTITION_ROWS = 1_000_000
MOST_PARTITIONS = 64  # of ingest_duplicates


@dataclass(frozen=True)
class Left:
    """What is still to make. seconds: of workers, each of which holds what its stage declares."""

    shards: Figure = NOTHING
    rows_in: Figure = NOTHING
    rows_out: Figure = NOTHING
    bytes: Figure = NOTHING
    files: Figure = NOTHING
    seconds: Figure = NOTHING


@dataclass(frozen=True)
class Line:
    """Of a stage and a source; source ALL: all of them together."""

    stage: str
    source: str
    cpus: float
    gpus: float
    done: Done
    left: Left
    rates: Rates

    @property
    def rows_out(self) -> Figure:
        return self.left.rows_out + self.done.rows_out

    @property
    def cpu_hours(self) -> Figure:
        return self.left.seconds * (self.cpus / 3600)

    @property
    def gpu_hours(self) -> Figure:
        return self.left.seconds * (self.gpus / 3600)


@dataclass(frozen=True)
class Found:
    """A job's lists, and what its root holds of it; of a base, rates alone are taken. prefilter: whether rows are
    filtered by their source's columns first; if not, the plan is one of a root with nothing in it."""

    job: Job
    rows: Mapping[str, SourceRows]
    done: Mapping[str, StageDone]
    seen: Mapping[str, StageDone]  # what rates are measured from
    prefilter: bool = True

    @classmethod
    def of(cls, job: Job) -> "Found":
        """Raises RecipeError where the lists are wrong, or cannot be counted and are not stated."""
        done = {stage.name: _done(job.root, stage) for stage in job.stages}
        seen = dict(done)
        for stage in job.stages:
            if job.base and not done[stage.name].by_source:
                seen[stage.name] = _done(job.base.root, stage)
        return cls(job, rows_of_sources(job), done, seen)

    def afresh(self, *, prefilter: bool) -> "Found":
        """As if nothing were done yet, at the same rates."""
        return Found(self.job, self.rows, dict.fromkeys(self.done, NOT_BEGUN), self.seen, prefilter)

    def passed(self, source: str) -> Figure:
        """The share of its rows that the recipe's prefilter lets pass: by the records, the recipe, the list's head."""
        if not has_prefilter(self.job, source):
            return Figure(1)
        done = self.seen["ingest_rows"].by_source.get(source, Done()) if "ingest_rows" in self.seen else Done()
        if done.rows_out:
            return measured(done.rows_out / (done.rows_out + done.prefiltered), _shards_of(done))
        given, seen = self.job.plan.survival.get(source), self.rows[source].passed
        return seen if seen and not (given and given.prefilter) else stated_prefilter(self.job, source)

    @cached_property
    def lines(self) -> list[Line]:
        """In the order of the stages."""
        made: list[Line] = []
        flow = {source: rows.rows for source, rows in self.rows.items()}
        for stage in self.job.stages:
            of_stage = list(self._lines(stage, flow))
            made += of_stage
            if stage.name in PASSES:
                flow = {line.source: line.rows_out for line in of_stage}
        return made

    def _lines(self, stage: Stage[Any], flow: Mapping[str, Figure]) -> Iterator[Line]:
        everything = total(flow.values())
        if stage.name not in BY_SOURCE:
            flow = {ALL: _rows_of_all(self.job, stage.name, everything)}
        for source, rows in flow.items():
            done = self.done[stage.name]
            rates = self._rates(stage.name, source, everything.value)
            ours = done.by_source.get(source, Done())
            left = Left() if done.whole else self._left(stage.name, source, rows.less(ours.rows_in), ours, rates)
            yield Line(stage.name, source, stage.resources.cpus, stage.resources.gpus, ours, left, rates)

    def _left(self, stage: str, source: str, rows: Figure, done: Done, rates: Rates) -> Left:
        shards = self._shards(stage, source, rows + done.rows_in).less(done.shards)
        rows_out = rows * rates.survival
        return Left(
            shards=shards,
            rows_in=rows,
            rows_out=rows_out,
            bytes=rows_out * rates.bytes + shards * rates.shard_bytes,
            files=shards * rates.files,
            seconds=rows * rates.seconds + shards * rates.shard_seconds,
        )

    def _shards(self, stage: str, source: str, rows: Figure) -> Figure:
        """Of the whole stage and a source: as planned, else as many as its rows will make."""
        planned = self.done[stage].shards
        if planned is not None:
            return Figure(planned.get(source, 0))
        if stage in BY_SOURCE:
            return self.rows[source].shards
        if stage == "ingest_count":
            return total(source.lists for source in self.rows.values())
        return Figure(ceil(_shards_of_all(self.job, stage, rows.value)), rows.basis)

    def _rates(self, stage: str, source: str, rows: float) -> Rates:
        """Of this source's shards, of the stage's, else stated; survival of this source's alone. Without the prefilter
        its rows go on to the score, which is taken to reject them."""
        passed, seen = self.passed(source) if source in self.rows else Figure(1), self.seen[stage]
        rates = stated_rates(self.job, stage, source, passed, rows)
        rates = measured_rates(seen.all, rates)
        own = seen.by_source.get(source)
        rates = measured_rates(own, rates, survives=True) if own else rates
        if self.prefilter or passed.value == 1:
            return rates
        changed = {"ingest_rows": Figure(1) / passed, "filter_judge": passed}.get(stage, Figure(1))
        return replace(rates, survival=rates.survival * changed)


def measured_rates(done: Done, otherwise: Rates, *, survives: bool = False) -> Rates:
    """Of committed shards. survives: they are of the source in question."""
    if not done.shards:
        return otherwise
    origin = _shards_of(done)
    rates = replace(
        otherwise,
        bytes=measured(done.bytes / done.rows_out if done.rows_out else 0, origin),
        shard_bytes=measured((done.record_bytes + (0 if done.rows_out else done.bytes)) / done.shards, origin),
        files=measured(done.files / done.shards, origin),
    )
    if survives and done.rows_in:
        rates = replace(rates, survival=measured(done.rows_out / done.rows_in, origin))
    if not done.timed_shards:
        return rates
    per_row = done.seconds / done.timed_rows if done.timed_rows else 0
    per_shard = 0 if done.timed_rows else done.seconds / done.timed_shards
    return replace(rates, seconds=measured(per_row, origin), shard_seconds=measured(per_shard, origin))


def _done(root: str, stage: Stage[Any]) -> StageDone:
    sources = sources_of_shards(root) if stage.name in BY_SOURCE else {}
    device = stage.conditions().get("device") if stage.stateful else None
    return stage_done(root, stage.name, sources, device)


def _shards_of(done: Done) -> str:
    return f"{done.shards:,} committed shards"


def _rows_of_all(job: Job, stage: str, corpus: Figure) -> Figure:
    """That enter a stage whose shards mix the sources."""
    if stage == "encoder":
        return NOTHING
    return Figure(index_of(job, int(corpus.value))[0].sample, corpus.basis) if stage == "index_train" else corpus


def _shards_of_all(job: Job, stage: str, rows: float) -> float:
    if stage == "corpus":
        return rows / job.filter.shard_rows
    if stage == "index_add":
        usual = min(ADDED_AT_ONCE, max(rows / ADD_TASKS, LEAST_ADDED))
        return max(rows / (job.index.vectors_per_task or usual), 1)
    if stage == "index":
        return index_of(job, int(rows))[1].shards
    if stage == "ingest_duplicates":
        return min(max(rows / PARTITION_ROWS, 1), MOST_PARTITIONS)
    return max(rows / PARTITION_ROWS, 1) if stage in ("filter_duplicates", "ingest_keys") else 1
