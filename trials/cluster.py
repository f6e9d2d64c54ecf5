"""Two Ray nodes on this machine, the second of which can be lost."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trials.processes import descendants, title

MEMORY = 100 * 2**20  # bytes of a node's object store: only descriptors pass through it
FAST_HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 2,
}
"""A lost node is noticed within seconds; Ray's own settings take half a minute."""


@dataclass
class TwoNodes:
    """The head, where drivers join, and the other one, once it has joined."""

    cpus: int
    health: Mapping[str, int]
    head_cpus: int
    _cluster: Any = field(init=False)
    _other: Any = field(init=False)

    def __post_init__(self) -> None:
        from ray.cluster_utils import Cluster

        options: dict[str, Any] = {
            "num_cpus": self.head_cpus,
            "object_store_memory": MEMORY,
            "include_dashboard": False,
        }
        if self.health:
            options["_system_config"] = dict(self.health)
        self._cluster = Cluster(initialize_head=True, head_node_args=options)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def join(self) -> None:
        self._other = self._cluster.add_node(num_cpus=self.cpus, object_store_memory=MEMORY)

    def lose(self) -> None:
        """As a power cut would take it: its processes are killed, and nobody is told."""
        self._cluster.remove_node(self._other, allow_graceful=False)

    def doing(self) -> list[str]:
        """What the processes of the other node call themselves: a worker, `ray::` and the task that it is at."""
        (raylet,) = self._other.all_processes["raylet"]
        return [title(process) for process in descendants(raylet.process.pid)]

    def close(self) -> None:
        self._cluster.shutdown()


@contextlib.contextmanager
def two_nodes(cpus: int, health: Mapping[str, int] = FAST_HEALTH, head_cpus: int | None = None) -> Iterator[TwoNodes]:
    """Ray's files and whatever killed workers leave behind lie in a folder that goes away with the cluster.

    cpus: what a node declares, and the head too, unless head_cpus says otherwise.
    """
    # Its path is short because sockets lie in it, whose paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="two", dir="/tmp", ignore_cleanup_errors=True) as folder:
        settings = {
            "TMPDIR": folder,
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": os.pathsep.join(filter(None, [_checkout(), os.environ.get("PYTHONPATH")])),
        }
        with environment(settings):
            nodes = TwoNodes(cpus, health, head_cpus or cpus)
            try:
                nodes.join()
                yield nodes
            finally:
                nodes.close()


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """To the cluster that the environment names, else to an embedded Ray; afterwards the process is free of it."""
    import ray

    from pipeline import ray_executor

    ray_executor.connect(None)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """For the processes that are started meanwhile."""
    before = dict(os.environ)
    os.environ |= settings
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def _checkout() -> str:
    return str(Path(__file__).parent.parent)
