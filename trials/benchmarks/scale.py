"""The driver's memory and CPU a shard as runs grow, and the start of a run that is finished.

A size is measured in a fresh process:    python -m trials.benchmarks.scale SHARDS
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.commits import StageFolder
from trials.benchmarks.clock import seconds
from trials.benchmarks.frame import chain, resumed, run
from trials.processes import Usage

WARM_UP = 500  # shards; what is taken once is not measured
SIZES = (1_000, 10_000, 75_000)
RESUMED = 10_000


@dataclass(frozen=True)
class Cost:
    shards: int
    wall_s: float
    cpu_s: float
    memory_bytes: int  # growth of the process's peak


def scale() -> Iterator[tuple[str, str]]:
    """Two chained trivial stages on a local root."""
    costs = []
    for shards in SIZES:
        costs.append(_in_a_fresh_process(shards))
        yield from _lines(costs[-1])
    cpu = [cost.cpu_s / cost.shards for cost in costs]
    memory = [cost.memory_bytes / cost.shards for cost in costs]
    yield "CPU a shard: highest to lowest of the sizes", f"{max(cpu) / min(cpu):.2f} (target ≤ 1.3)"
    yield "memory a shard: highest to lowest of the sizes", f"{max(memory) / min(memory):.2f} (target ≤ 1.3)"


def _lines(cost: Cost) -> Iterator[tuple[str, str]]:
    yield f"{cost.shards:,} shards: wall", f"{1000 * cost.wall_s / cost.shards:.1f} ms a shard"
    yield f"{cost.shards:,} shards: driver's CPU", f"{1000 * cost.cpu_s / cost.shards:.2f} ms a shard"
    yield f"{cost.shards:,} shards: driver's memory", f"{cost.memory_bytes / cost.shards / 1024:.1f} KiB a shard"


def _in_a_fresh_process(shards: int) -> Cost:
    command = [sys.executable, "-m", "trials.benchmarks.scale", str(shards)]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return Cost(**json.loads(said.splitlines()[-1]))


def measured(shards: int) -> Cost:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        run(f"{folder}/warm-up", chain(2, WARM_UP))
        before = Usage.of(os.getpid())
        wall_s = seconds(lambda: run(f"{folder}/run", chain(2, shards)))
        after = Usage.of(os.getpid())
        return Cost(shards, wall_s, after.cpu_s - before.cpu_s, after.peak_bytes - before.peak_bytes)


def resume() -> Iterator[tuple[str, str]]:
    """Of three stages that are whole, where Ray is up."""
    stages = chain(3, RESUMED)
    with tempfile.TemporaryDirectory(dir=".") as root:
        run(root, stages)
        yield f"{RESUMED:,} finished shards of three stages", f"{resumed(root, stages):.2f} s (target < 5)"
        for stage in stages:
            Path(root, stage.name, "manifest.json").unlink()
        yield "the same without the manifests: every record is read", f"{resumed(root, stages):.2f} s"
        folders = [StageFolder(root, stage.name) for stage in stages]
        listing_s = seconds(lambda: [folder.committed() for folder in folders])
        yield "of that, listing the records", f"{listing_s:.2f} s"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measured(int(sys.argv[1])))) + "\n")
