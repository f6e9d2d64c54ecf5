#!/usr/bin/env python
"""What the frame and the stages cost, as ratios to a bound or a peer in the same run.

python jobs/benchmark.py [frame] [embed]      prints a table in Markdown; all parts without a name
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.commits import Whole
from pipeline.recipe import Json
from pipeline.run import Run
from pipeline.stage import Counts, Input, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task

SHARDS = 1000


@dataclass(frozen=True)
class Trivial(Stage[None]):
    """One row in, one row out; the first of a chain where it reads nothing."""

    name: str  # type: ignore[misc]  # three of them stand in one run
    reads: str | None = None
    version = 1

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input(self.reads),) if self.reads else ()

    def settings(self) -> Mapping[str, Json]:
        return {}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(n)) for n in range(SHARDS)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        table = task.read(self.reads).table("rows") if self.reads else pa.table({"n": [int(task.id)]})
        out.table("rows", "{stem}.parquet", table)
        return Counts(table.num_rows, table.num_rows)


CHAIN = [Trivial("first"), Trivial("second", "first"), Trivial("third", "second")]


def frame() -> Iterator[tuple[str, str]]:
    """Scheduling and committing trivial shards through three chained stages, beside a bare window of tasks."""
    from pipeline import ray_executor

    ray_executor.connect(None)
    bare = _seconds(_bare_window)
    yield "bare window: three chained empty tasks", f"{1000 * bare / SHARDS:.1f} ms a shard"
    with tempfile.TemporaryDirectory(dir=".") as root:
        ours = _seconds(lambda: _run(root))
        yield "three stages, scheduled and committed", f"{1000 * ours / SHARDS:.1f} ms a shard (target ≤ 25)"
        yield "ratio to the bare window", f"{ours / bare:.2f}"
        yield "resume of the finished run", f"{_seconds(lambda: _run(root)):.2f} s (target < 3)"
        syncs = _seconds(lambda: _sync_files(Path(root)))
        yield "bound of the disk: 9 syncs a shard, two at a time", f"{1000 * syncs / SHARDS:.1f} ms a shard"


def _run(root: str) -> None:
    from pipeline.ray_executor import RayExecutor

    assert Run(root, CHAIN).execute(RayExecutor()).exit_code == 0


def _bare_window() -> None:
    import ray

    @ray.remote
    def step(n: int) -> int:
        return n

    flying: list[Any] = []
    for n in range(SHARDS):
        flying.append(step.remote(step.remote(step.remote(n))))
        while len(flying) >= 16:
            _, flying = ray.wait(flying, num_returns=1)
    ray.get(flying)


def _sync_files(folder: Path) -> None:
    """What the commits of one chain ask of the disk: a file, its folder and a record, three times."""
    from concurrent.futures import ThreadPoolExecutor

    def sync(number: int) -> None:
        for n in range(9):
            with Path(folder, f"sync{number}-{n}").open("wb") as file:
                file.write(b"0")
                file.flush()
                os.fsync(file.fileno())

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(sync, range(SHARDS)))


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


PARTS = {"frame": frame}


def main(argv: Sequence[str]) -> int:
    unknown = sorted(set(argv) - PARTS.keys())
    if unknown:
        print(f"{unknown[0]!r} is no part; the parts are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    for part in argv or PARTS:
        print(f"| {part} | |\n| --- | --- |")
        for what, figure in PARTS[part]():
            print(f"| {what} | {figure} |", flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
