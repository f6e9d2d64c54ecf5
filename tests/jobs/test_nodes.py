"""Machines that die and join while a run works: it ends by itself, nothing is made twice, and no shard is blamed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs import build_index
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from tests.jobs.main_job import AFTER, CRAWL, RECIPE, small
from tests.ports import free_ports
from tests.toys import data_of, everything_in, toy_stages
from trials.cluster import FAST_HEALTH, TwoNodes, two_nodes

ROOT = Path(__file__).parents[2]
LIMIT_S = 150
PATIENT = FAST_HEALTH | {"health_check_failure_threshold": 10}  # tests share their machine with others


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    # The head's one CPU is for tasks, so whatever keeps a state works on the node that is lost.
    with two_nodes(2, PATIENT, head_cpus=1) as nodes:
        yield nodes


@dataclass(frozen=True)
class Driver:
    """A job that joins at the head. What it says is kept in a file, so that it never waits for a reader."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert self.process.poll() is None, f"it ended first: {self.said[-3000:]}"
            assert time.monotonic() < deadline, f"it hangs: {self.said[-3000:]}"
            time.sleep(0.02)

    def wait(self) -> int:
        return self.process.wait(LIMIT_S)


@contextmanager
def started(nodes: TwoNodes, log: Path, *command: str) -> Iterator[Driver]:
    environment = os.environ | {"RAY_ADDRESS": nodes.address, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Driver(process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def records(root: Path, stage: str = "*") -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.glob(f"{stage}/commits/*.json")}


@pytest.mark.slow
def test_the_demo_outlives_a_node_and_takes_up_another(nodes: TwoNodes, tmp_path: Path) -> None:
    (port,) = free_ports(1)

    def arguments(root: Path, *overrides: str) -> list[str]:
        made = small(root, tmp_path / "lists", port)
        sources = made[[part.startswith("ingest=") for part in made].index(True)]
        return [RECIPE, *made, sources.replace("shard_size: 100", "shard_size: 25"), *overrides]

    assert build_index.main(arguments(tmp_path / "local")) == 0
    root = tmp_path / "ray"
    with started(nodes, tmp_path / "log", "jobs/build_index.py", *arguments(root, "engine=ray")) as driver:
        driver.wait_until(lambda: "ray::embed" in nodes.doing() and bool(records(root, "embed")))
        committed = records(root)
        nodes.lose()
        nodes.join()
        assert driver.wait() == 0, driver.said[-3000:]
    assert "its process died (not the shard's fault)" in driver.said
    assert "its process died (death" not in driver.said
    assert {path: path.read_bytes() for path in committed} == committed
    for stage in (*CRAWL, *AFTER):
        found, expected = data_of(str(root), stage), data_of(str(tmp_path / "local"), stage)
        if stage == "download":  # its table tells how long each answer took
            found, expected = ({k: v for k, v in data.items() if k[1] != "pairs"} for data in (found, expected))
        assert found == expected, stage


@dataclass(frozen=True)
class Toys:
    """A run of tests/jobs/toy_driver.py: a fifth of a second a shard in two stages."""

    folder: Path
    shards: int
    driver: Driver

    def deaths(self, counted: bool) -> list[dict[str, Any]]:
        found = json.loads((self.folder / "deaths.json").read_text())
        return [death for death in found if death["counted"] is counted]

    def is_as_in_one_process(self) -> bool:
        local = str(self.folder / "local")
        Run(local, toy_stages(self.shards)).execute(LocalExecutor())
        return everything_in(str(self.folder / "ray")) == everything_in(local)


@contextmanager
def toys(nodes: TwoNodes, folder: Path, shards: int, **squares: Any) -> Iterator[Toys]:
    arguments = [str(folder / "ray"), str(folder / "deaths.json"), str(shards), json.dumps(squares)]
    with started(nodes, folder / "log", "-m", "tests.jobs.toy_driver", *arguments) as driver:
        yield Toys(folder, shards, driver)


@pytest.mark.slow
def test_three_nodes_may_die_in_one_run(nodes: TwoNodes, tmp_path: Path) -> None:
    with toys(nodes, tmp_path, shards=100) as run:
        for _ in range(3):
            run.driver.wait_until(lambda: not {"ray::numbers", "ray::squares"}.isdisjoint(nodes.doing()))
            nodes.lose()
            nodes.join()
        assert run.driver.wait() == 0, run.driver.said[-3000:]
    assert run.is_as_in_one_process()
    assert run.deaths(counted=True) == []
    assert len(run.deaths(counted=False)) >= 3


@pytest.mark.slow
def test_no_shard_waits_for_a_worker_that_has_no_room(nodes: TwoNodes, tmp_path: Path) -> None:
    with toys(nodes, tmp_path, shards=16, cpus=2, workers=3) as run:
        assert run.driver.wait() == 0, run.driver.said[-3000:]
    assert run.is_as_in_one_process()
    assert run.deaths(counted=True) == []
