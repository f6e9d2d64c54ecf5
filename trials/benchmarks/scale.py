"""The driver's memory and CPU a shard as runs grow, and the start of a run that is finished.

A size is measured in a fresh process:    python -m trials.benchmarks.scale SHARDS
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from pipeline.commits import StageFolder
from trials.benchmarks.clock import seconds
from trials.benchmarks.frame import chain, resumed, run
from trials.cluster import connected
from trials.processes import Usage

WARM_UP = 500  # shards; what is taken once is not measured
SIZES = (1_000, 10_000, 75_000)


@dataclass(frozen=True)
class Cost:
    shards: int
    wall_s: float
    cpu_s: float
    peak_bytes: int  # of the process
    growth_bytes: int  # of that peak, since the warm-up


def scale(sizes: Sequence[int] = SIZES) -> Iterator[tuple[str, str]]:
    """Two chained trivial stages on a local root."""
    costs: list[Cost] = []
    for shards in sizes:
        costs.append(_in_a_fresh_process(shards))
        yield from _lines(costs[-1])
    for small, large in pairwise(costs):
        slope = (large.peak_bytes - small.peak_bytes) / (large.shards - small.shards)
        yield f"from {small.shards:,} to {large.shards:,} shards: peak memory", f"{slope / 1024:.1f} KiB a shard more"
    yield "CPU a shard: highest to lowest of the sizes", _ratio([cost.cpu_s / cost.shards for cost in costs])
    yield "growth a shard: highest to lowest of the sizes", _ratio([cost.growth_bytes / cost.shards for cost in costs])


def _ratio(values: Sequence[float]) -> str:
    """A small run may grow by nothing: the warm-up has taken what it needs."""
    ratio = f"{max(values) / min(values):.2f}" if min(values) else "none, because the lowest is 0"
    return f"{ratio} (target ≤ 1.3)"


def _lines(cost: Cost) -> Iterator[tuple[str, str]]:
    yield f"{cost.shards:,} shards: wall", f"{1000 * cost.wall_s / cost.shards:.1f} ms a shard"
    yield f"{cost.shards:,} shards: driver's CPU", f"{1000 * cost.cpu_s / cost.shards:.2f} ms a shard"
    growth = f"{cost.growth_bytes / cost.shards / 1024:.1f} KiB a shard"
    yield (
        f"{cost.shards:,} shards: driver's peak memory, its growth after the warm-up",
        f"{cost.peak_bytes / 2**20:,.0f} MiB · {growth}",
    )


def _in_a_fresh_process(shards: int) -> Cost:
    command = [sys.executable, "-m", "trials.benchmarks.scale", str(shards)]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return Cost(**json.loads(said.splitlines()[-1]))


def measured(shards: int) -> Cost:
    with connected(), tempfile.TemporaryDirectory(dir=".") as folder:
        run(f"{folder}/warm-up", chain(2, WARM_UP))
        before = Usage.of(os.getpid())
        wall_s = seconds(lambda: run(f"{folder}/run", chain(2, shards)))
        after = Usage.of(os.getpid())
        growth = after.peak_bytes - before.peak_bytes
        return Cost(shards, wall_s, after.cpu_s - before.cpu_s, after.peak_bytes, growth)


def resume(shards: int = 10_000) -> Iterator[tuple[str, str]]:
    """Of three stages that are whole, where Ray is up."""
    stages = chain(3, shards)
    with connected(), tempfile.TemporaryDirectory(dir=".") as root:
        run(root, stages)
        yield f"{shards:,} finished shards of three stages", f"{resumed(root, stages):.2f} s (target < 5)"
        for stage in stages:
            Path(root, stage.name, "manifest.json").unlink()
        yield "the same without the manifests: every record is read", f"{resumed(root, stages):.2f} s"
        folders = [StageFolder(root, stage.name) for stage in stages]
        listing_s = seconds(lambda: [folder.committed() for folder in folders])
        yield "of that, listing the records", f"{listing_s:.2f} s"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measured(int(sys.argv[1])))) + "\n")
