"""Killed at any moment and started again, a root is the undisturbed one; so is one that several drivers share."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.executor import LocalExecutor
from pipeline.run import Run
from tests.toys import everything_in, left_in, toy_stages

SHARDS = 60
KILLS = 3  # of one root at most
LIMIT_S = 120  # a run that takes longer hangs
PROGRAM = """
import sys
from pipeline.run import Run, executor_for
from tests.toys import toy_stages
sys.exit(Run(sys.argv[1], toy_stages(int(sys.argv[2]))).execute(executor_for(sys.argv[3], 2)).exit_code)
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def start(root: Path, engine: str) -> "subprocess.Popen[bytes]":
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", PROGRAM, str(root), str(SHARDS), engine]
    return subprocess.Popen(command, env=environment, start_new_session=True)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quiet")
    Run(str(root), toy_stages(SHARDS)).execute(LocalExecutor())
    return root


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Of an undisturbed run, by engine."""
    took = {}
    for engine in ("local", "ray"):
        began = time.monotonic()
        assert start(tmp_path_factory.mktemp("timed"), engine).wait(LIMIT_S) == 0
        took[engine] = time.monotonic() - began
    return took


def expect_the_same(root: Path, quiet: Path) -> None:
    assert everything_in(str(root)) == everything_in(str(quiet))
    assert left_in(root) == left_in(quiet)


@pytest.mark.parametrize("seed", range(80))
def test_a_driver_killed_at_random_moments_is_continued(
    seed: int, quiet: Path, seconds: dict[str, float], tmp_path: Path
) -> None:
    rng = random.Random(seed)
    for _ in range(KILLS):
        driver = start(tmp_path, "local")
        try:
            driver.wait(rng.uniform(0.3, 1) * seconds["local"])
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
    assert start(tmp_path, "local").wait(LIMIT_S) == 0
    expect_the_same(tmp_path, quiet)


@pytest.mark.parametrize("seed", range(80, 100))
def test_random_processes_of_a_run_on_ray_are_killed_and_it_is_continued(
    seed: int, quiet: Path, seconds: dict[str, float], tmp_path: Path
) -> None:
    rng = random.Random(seed)
    driver = start(tmp_path, "ray")
    for _ in range(KILLS):
        try:
            driver.wait(rng.uniform(0.2, 0.5) * seconds["ray"])
        except subprocess.TimeoutExpired:
            os.kill(rng.choice([*descendants(driver.pid), driver.pid]), signal.SIGKILL)
    exit_code = driver.wait(LIMIT_S)
    if exit_code:
        assert start(tmp_path, "ray").wait(LIMIT_S) == 0
    expect_the_same(tmp_path, quiet)


def descendants(pid: int) -> list[int]:
    """Workers, and the processes of Ray itself."""
    tasks = Path(f"/proc/{pid}/task")
    children = [int(child) for task in tasks.glob("*/children") for child in task.read_text().split()]
    return children + [below for child in children for below in descendants(child)]


@pytest.mark.parametrize("repetition", range(20))
def test_two_drivers_started_together_finish_one_root_together(repetition: int, quiet: Path, tmp_path: Path) -> None:
    drivers = [start(tmp_path, "local") for _ in range(2)]
    assert [driver.wait(LIMIT_S) for driver in drivers] == [0, 0]
    expect_the_same(tmp_path, quiet)
