"""What the loss of a node costs a run."""

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.commits import Whole
from pipeline.recipe import Json
from pipeline.stage import Counts, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from trials.benchmarks.clock import seconds
from trials.benchmarks.frame import run
from trials.cluster import FAST_HEALTH, TwoNodes, connected, environment, two_nodes

CPUS = 4  # a node
HEALTH_CHECKS = {"Ray's own health checks": {}, "fast health checks": FAST_HEALTH}


@dataclass(frozen=True)
class Sleeps(Stage[None]):
    """A known time a shard."""

    shards: int
    shard_s: float
    name, version, resources = "sleeps", 1, Resources(memory_gib=0.25)

    def settings(self) -> Mapping[str, Json]:
        return {}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(n)) for n in range(self.shards)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        time.sleep(self.shard_s)
        out.json("slept", "{stem}.json", self.shard_s)
        return Counts(1, 1)


def recovery(
    stage: Sleeps = Sleeps(80, 2.0),
    loss_after_s: float = 5.0,
    health_checks: Mapping[str, Mapping[str, int]] = HEALTH_CHECKS,
    repetitions: int = 2,
) -> Iterator[tuple[str, str]]:
    """One of two nodes is killed and another joins at once; the same run undisturbed, on the same nodes, before it.

    Of the difference nothing is subtracted. Each of the shards in flight on the lost node is half done on average,
    which all CPUs make up for; but the last round of shards is rarely full, which may cost a round.
    """
    made_again_s = stage.shard_s / 2 * CPUS / (2 * CPUS)
    for what, health in health_checks.items():
        for number in range(repetitions):
            undisturbed_s, disturbed_s = _both(stage, loss_after_s, health)
            yield (
                f"{what}, run {number + 1}: undisturbed · a node lost after {loss_after_s:.0f} s · difference",
                f"{undisturbed_s:.1f} s · {disturbed_s:.1f} s · {disturbed_s - undisturbed_s:.1f} s",
            )
    yield (
        f"of a difference: half of each of {CPUS} shards made again by {2 * CPUS} CPUs · at most a round of shards",
        f"{made_again_s:.1f} s · {stage.shard_s:.1f} s",
    )


def _both(stage: Sleeps, loss_after_s: float, health: Mapping[str, int]) -> tuple[float, float]:
    with (
        tempfile.TemporaryDirectory(dir=".") as folder,
        two_nodes(CPUS, health) as nodes,
        contextlib.redirect_stdout(sys.stderr),  # what Ray says of a lost node does not belong among the figures
        environment({"RAY_ADDRESS": nodes.address}),
        connected(),
    ):
        run(f"{folder}/warm-up", [Sleeps(2 * CPUS, stage.shard_s)])  # workers start once
        undisturbed_s = seconds(lambda: run(f"{folder}/undisturbed", [stage]))
        return undisturbed_s, _losing_a_node(nodes, loss_after_s, f"{folder}/disturbed", stage)


def _losing_a_node(nodes: TwoNodes, after_s: float, root: str, stage: Sleeps) -> float:
    with ThreadPoolExecutor(1) as pool:  # Ray starts nodes from the main thread only
        disturbed_s = pool.submit(seconds, lambda: run(root, [stage]))
        time.sleep(after_s)
        nodes.lose()
        nodes.join()
        return disturbed_s.result()
