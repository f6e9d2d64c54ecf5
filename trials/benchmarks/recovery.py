"""What the loss of a node costs a run beyond the shards that were in flight there."""

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
from trials.cluster import FAST_HEALTH, TwoNodes, two_nodes

CPUS = 4  # a node
SHARD_S = 2.0
SHARDS = 80
LOSS_AFTER_S = 5.0


@dataclass(frozen=True)
class Sleeps(Stage[None]):
    """A known time a shard."""

    shards: int
    name, version, resources = "sleeps", 1, Resources(memory_gib=0.25)

    def settings(self) -> Mapping[str, Json]:
        return {}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(n)) for n in range(self.shards)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        time.sleep(SHARD_S)
        out.json("slept", "{stem}.json", SHARD_S)
        return Counts(1, 1)


def recovery() -> Iterator[tuple[str, str]]:
    """One of two nodes is killed and another joins at once; the same run undisturbed, on the same nodes, before it."""
    in_flight_s = CPUS * SHARD_S / (2 * CPUS)
    for what, health in (("Ray's own health checks", {}), ("fast health checks", FAST_HEALTH)):
        undisturbed_s, disturbed_s = _both(health)
        yield f"{what}: undisturbed", f"{undisturbed_s:.1f} s"
        yield f"{what}: one node lost after {LOSS_AFTER_S:.0f} s", f"{disturbed_s:.1f} s"
        lost_s = disturbed_s - undisturbed_s - in_flight_s
        yield f"{what}: lost beyond the shards in flight ({in_flight_s:.1f} s)", f"{lost_s:.1f} s"


def _both(health: Mapping[str, int]) -> tuple[float, float]:
    import ray

    with (
        tempfile.TemporaryDirectory(dir=".") as folder,
        two_nodes(CPUS, health) as nodes,
        contextlib.redirect_stdout(sys.stderr),  # what Ray says of a lost node does not belong among the figures
    ):
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        run(f"{folder}/warm-up", [Sleeps(2 * CPUS)])  # workers start once
        undisturbed_s = seconds(lambda: run(f"{folder}/undisturbed", [Sleeps(SHARDS)]))
        disturbed_s = _losing_a_node(nodes, f"{folder}/disturbed")
        ray.shutdown()
    return undisturbed_s, disturbed_s


def _losing_a_node(nodes: TwoNodes, root: str) -> float:
    with ThreadPoolExecutor(1) as pool:  # Ray starts nodes from the main thread only
        disturbed_s = pool.submit(seconds, lambda: run(root, [Sleeps(SHARDS)]))
        time.sleep(LOSS_AFTER_S)
        nodes.lose()
        nodes.join()
        return disturbed_s.result()
