"""Machines that die and join while a run works: it ends by itself, nothing is made twice, and no shard is blamed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from jobs import build_index
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from tests.jobs.main_job import AFTER, CRAWL, RECIPE, small
from tests.ports import free_ports
from tests.toys import data_of, everything_in, toy_stages

ROOT = Path(__file__).parents[2]
STORE = 100 * 2**20  # bytes
SHARDS = 40
QUICK_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 4,
}


@dataclass
class Nodes:
    """A head, and nodes beside it that can be killed like a machine that loses its power."""

    cluster: Any
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    def add(self, cpus: int) -> Any:
        return self.cluster.add_node(num_cpus=cpus, object_store_memory=STORE)

    def kill(self, node: Any) -> None:
        self.cluster.remove_node(node, allow_graceful=False)

    def start(self, *command: str) -> subprocess.Popen[str]:
        environment = os.environ | {"RAY_ADDRESS": self.cluster.address, "PYTHONPATH": str(ROOT)}
        driver = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.drivers.append(driver)
        return driver

    def close(self) -> None:
        for driver in self.drivers:
            driver.kill()
            driver.communicate()
        self.cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    head = {
        "num_cpus": 1,
        "include_dashboard": False,
        "object_store_memory": STORE,
        "_system_config": QUICK_HEALTH_CHECKS,
    }
    nodes = Nodes(Cluster(initialize_head=True, head_node_args=head))
    yield nodes
    nodes.close()


def records(root: Path, stage: str = "*") -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.glob(f"{stage}/commits/*.json")}


def wait_for(condition: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    while not condition():
        assert driver.poll() is None, f"the driver ended first: {driver.communicate()[0][-3000:]}"
        time.sleep(0.05)


def ended(driver: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = driver.communicate(timeout=150)
    return driver.returncode, said


def test_the_demo_outlives_a_node_and_takes_up_another(nodes: Nodes, tmp_path: Path) -> None:
    (port,) = free_ports(1)

    def arguments(root: Path, *overrides: str) -> list[str]:
        made = small(root, tmp_path / "lists", port)
        sources = made[[part.startswith("ingest=") for part in made].index(True)]
        return [RECIPE, *made, sources.replace("shard_size: 100", "shard_size: 25"), *overrides]

    assert build_index.main(arguments(tmp_path / "local")) == 0
    root = tmp_path / "ray"
    lost = nodes.add(cpus=2)
    driver = nodes.start("jobs/build_index.py", *arguments(root, "engine=ray"))
    wait_for(lambda: len(records(root, "download")) >= 4 and len(records(root, "embed")) >= 1, driver)
    nodes.kill(lost)
    committed = records(root)
    assert not (root / "embed" / "manifest.json").exists(), "the node died too late to prove anything"
    joined = nodes.add(cpus=2)
    code, said = ended(driver)
    nodes.kill(joined)
    assert code == 0, said[-3000:]
    assert "its process died (death" not in said
    assert {path: path.read_bytes() for path in committed} == committed
    for stage in (*CRAWL, *AFTER):
        found, expected = data_of(str(root), stage), data_of(str(tmp_path / "local"), stage)
        if stage == "download":  # its table tells how long each answer took
            found, expected = ({k: v for k, v in data.items() if k[1] != "pairs"} for data in (found, expected))
        assert found == expected, stage


@dataclass(frozen=True)
class Toys:
    """A run of tests/jobs/two_nodes.py: 40 shards, a fifth of a second each in two stages."""

    folder: Path
    driver: subprocess.Popen[str]

    @classmethod
    def start(cls, nodes: Nodes, folder: Path, **squares: Any) -> "Toys":
        arguments = [str(folder / "ray"), str(folder / "deaths.json"), str(SHARDS), json.dumps(squares)]
        return cls(folder, nodes.start("-m", "tests.jobs.two_nodes", *arguments))

    @property
    def squares(self) -> int:
        return len(records(self.folder / "ray", "squares"))

    def deaths(self, counted: bool) -> list[dict[str, Any]]:
        found = json.loads((self.folder / "deaths.json").read_text())
        return [death for death in found if death["counted"] is counted]

    def is_as_in_one_process(self) -> bool:
        local = str(self.folder / "local")
        Run(local, toy_stages(SHARDS)).execute(LocalExecutor())
        return everything_in(str(self.folder / "ray")) == everything_in(local)


def test_three_nodes_may_die_in_one_run(nodes: Nodes, tmp_path: Path) -> None:
    node = nodes.add(cpus=2)
    toys = Toys.start(nodes, tmp_path)
    for made in (4, 12, 20):
        wait_for(lambda made=made: toys.squares >= made, toys.driver)  # type: ignore[misc]
        nodes.kill(node)
        node = nodes.add(cpus=2)
    code, said = ended(toys.driver)
    nodes.kill(node)
    assert code == 0, said[-3000:]
    assert toys.is_as_in_one_process()
    assert toys.deaths(counted=True) == []
    assert toys.deaths(counted=False)


def test_a_shard_that_always_kills_its_worker_is_blamed_alone(nodes: Nodes, tmp_path: Path) -> None:
    node = nodes.add(cpus=2)
    toys = Toys.start(nodes, tmp_path, bad_shard="000005", fault="die")
    code, said = ended(toys.driver)
    nodes.kill(node)
    assert code == 1
    assert [death["name"] for death in toys.deaths(counted=True)] == ["squares:000005"] * 3
    assert all("its worker process has died" in death["cause"] for death in toys.deaths(counted=True))
    assert "squares:000005: its process died (death 3 of 3): ActorDiedError" in said
    assert toys.squares == SHARDS - 1


def test_no_shard_waits_for_a_worker_that_has_no_room(nodes: Nodes, tmp_path: Path) -> None:
    node = nodes.add(cpus=2)
    toys = Toys.start(nodes, tmp_path, cpus=2, workers=3)
    code, said = ended(toys.driver)
    nodes.kill(node)
    assert code == 0, said[-3000:]
    assert toys.is_as_in_one_process()
    assert toys.deaths(counted=True) == []
