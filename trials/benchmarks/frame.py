"""Scheduling and committing trivial shards."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.commits import Whole
from pipeline.recipe import Json
from pipeline.run import Run
from pipeline.stage import Counts, Input, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from trials.benchmarks.clock import seconds
from trials.cluster import connected


@dataclass(frozen=True)
class Trivial(Stage[None]):
    """One row in, one row out; the first of a chain where it reads nothing."""

    name: str  # type: ignore[misc]  # several of them stand in one run
    shards: int
    reads: str | None = None
    version = 1

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input(self.reads),) if self.reads else ()

    def settings(self) -> Mapping[str, Json]:
        return {}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(n)) for n in range(self.shards)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        table = task.read(self.reads).table("rows") if self.reads else pa.table({"n": [int(task.id)]})
        out.table("rows", "{stem}.parquet", table)
        return Counts(table.num_rows, table.num_rows)


def chain(stages: int, shards: int) -> list[Trivial]:
    names = [f"stage{n}" for n in range(stages)]
    return [Trivial(name, shards, before) for name, before in zip(names, [None, *names], strict=False)]


def frame(shards: int = 1000) -> Iterator[tuple[str, str]]:
    """Scheduling and committing trivial shards through three chained stages, beside a bare window of tasks."""
    stages = chain(3, shards)
    with connected(), tempfile.TemporaryDirectory(dir=".") as root:
        bare = seconds(lambda: _bare_window(shards))
        yield "bare window: three chained empty tasks", f"{1000 * bare / shards:.1f} ms a shard"
        ours = seconds(lambda: run(root, stages))
        yield "three stages, scheduled and committed", f"{1000 * ours / shards:.1f} ms a shard (target ≤ 25)"
        yield "ratio to the bare window", f"{ours / bare:.2f}"
        yield "resume of the finished run", f"{resumed(root, stages):.2f} s (target < 3)"
        syncs = seconds(lambda: _sync_files(Path(root), shards))
        yield "bound of the disk: 9 syncs a shard, two at a time", f"{1000 * syncs / shards:.1f} ms a shard"


def run(root: str, stages: Sequence[Stage[None]]) -> None:
    from pipeline.ray_executor import RayExecutor

    assert Run(root, stages).execute(RayExecutor()).exit_code == 0


def resumed(root: str, stages: Sequence[Stage[None]]) -> float:
    Whole.open.cache_clear()  # as in a process that has read no manifest yet
    return seconds(lambda: run(root, stages))


def _same(n: int) -> int:
    return n


def _bare_window(shards: int) -> None:
    import ray

    step = ray.remote(_same)
    flying: list[Any] = []
    for n in range(shards):
        flying.append(step.remote(step.remote(step.remote(n))))
        while len(flying) >= 16:
            _, flying = ray.wait(flying, num_returns=1)
    ray.get(flying)


def _sync_files(folder: Path, shards: int) -> None:
    """What the commits of one chain ask of the disk: a file, its folder and a record, three times."""
    from concurrent.futures import ThreadPoolExecutor

    def sync(number: int) -> None:
        for n in range(9):
            with Path(folder, f"sync{number}-{n}").open("wb") as file:
                file.write(b"0")
                file.flush()
                os.fsync(file.fileno())

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(sync, range(shards)))
