"""Killed at any moment and started again, a root is the undisturbed one; so is one that several drivers share."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pipeline.executor import LocalExecutor
from pipeline.run import Run
from tests.toys import everything_in, left_in, made_by, toy_stages
from trials.processes import descendants

SHARDS = 60
KILLS = 3  # of one root at most
APART = (2 * SHARDS - 10) // KILLS  # commit records between two of them
LIMIT_S = 240  # a run that takes longer hangs; one whose Ray lost its head takes a minute more than others
PROGRAM = """
import sys
from pipeline.run import Run, executor_for
from tests.toys import toy_stages
stages, executor = toy_stages(int(sys.argv[2])), executor_for(sys.argv[3], 2)
print("ready", flush=True)
sys.stdout = sys.stderr
sys.stdin.read()
sys.exit(Run(sys.argv[1], stages).execute(executor).exit_code)
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Driver:
    """A run in a process of its own, which waits to be let go. What it and its workers say is kept in a file."""

    def __init__(self, root: Path, engine: str, log: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONFAULTHANDLER": "1"}
        self.root, self.log = root, log
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(root), str(SHARDS), engine],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def is_ready(self) -> bool:
        assert self._process.stdout is not None
        return self._process.stdout.readline() == b"ready\n"

    def let_go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def come_to(self, records: int) -> None:
        """Return when so many shards are committed, or the run has ended."""
        deadline = time.monotonic() + LIMIT_S
        while not self.ended and num_records(self.root) < records:
            assert time.monotonic() < deadline, f"hangs: {self.said()}"
            time.sleep(0.001)

    def kill(self) -> None:
        self._process.kill()

    def kill_one_below(self, rng: random.Random) -> bool:
        """Of the run's processes, Ray's own among them, or the driver. False: it was gone already."""
        with suppress(ProcessLookupError):
            os.kill(rng.choice([*sorted(descendants(self.pid)), self.pid]), signal.SIGKILL)
            return True
        return False

    def wait(self) -> int:
        return self._process.wait(LIMIT_S)

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def end(self) -> None:
        """With whatever Ray has started for it: all of that stays in its session, whoever adopts it."""
        for process in (int(folder.name) for folder in Path("/proc").glob("[0-9]*")):
            with suppress(ProcessLookupError):
                if os.getsid(process) == self.pid:
                    os.kill(process, signal.SIGKILL)
        with self._process:  # its pipes are closed
            pass


@contextmanager
def waiting(root: Path, engine: str) -> Iterator[Driver]:
    driver = Driver(root, engine, root.with_name(f"{root.name}.log"))
    try:
        assert driver.is_ready(), driver.said()
        yield driver
    finally:
        driver.end()


def num_records(root: Path) -> int:
    return sum(1 for _ in root.glob("*/commits/*.json"))


def finish(root: Path, engine: str) -> None:
    with waiting(root, engine) as driver:
        driver.let_go()
        assert driver.wait() == 0, driver.said()


def moments(rng: random.Random) -> list[int]:
    """When to kill: one in each third of the work, as a number of commit records."""
    return [rng.randrange(1, APART) + n * APART for n in range(KILLS)]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quiet")
    Run(str(root), toy_stages(SHARDS)).execute(LocalExecutor())
    return root


def expect_the_same(root: Path, quiet: Path) -> None:
    assert everything_in(str(root)) == everything_in(str(quiet))
    assert left_in(root) == left_in(quiet)


@pytest.mark.parametrize("seed", range(80))
def test_a_driver_killed_at_random_moments_is_continued(seed: int, quiet: Path, tmp_path: Path) -> None:
    rng, root, codes = random.Random(seed), tmp_path / "root", []
    for moment in moments(rng):
        with waiting(root, "local") as driver:
            driver.let_go()
            driver.come_to(max(moment, num_records(root) + 1))
            time.sleep(rng.uniform(0, 0.01))  # so that it dies anywhere within a shard
            driver.kill()
            codes.append(driver.wait())
            assert codes[-1] in (0, -signal.SIGKILL), driver.said()
    assert -signal.SIGKILL in codes
    finish(root, "local")
    expect_the_same(root, quiet)


@pytest.mark.parametrize("seed", range(80, 100))
def test_random_processes_of_a_run_on_ray_are_killed_and_it_is_continued(
    seed: int, quiet: Path, tmp_path: Path
) -> None:
    rng, root, hits = random.Random(seed), tmp_path / "root", 0
    with waiting(root, "ray") as driver:
        driver.let_go()
        for moment in moments(rng):
            driver.come_to(moment)
            time.sleep(rng.uniform(0, 0.01))
            hits += not driver.ended and driver.kill_one_below(rng)
        exit_code = driver.wait()
    assert hits
    if exit_code:
        finish(root, "ray")
    expect_the_same(root, quiet)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Roots that were each made by two drivers, which were let go together."""
    roots = [tmp_path_factory.mktemp("shared") / "root" for _ in range(20)]
    for root in roots:
        with waiting(root, "local") as one, waiting(root, "local") as other:
            for driver in (one, other):
                driver.let_go()
            assert [driver.wait() for driver in (one, other)] == [0, 0], one.said()
    return roots


@pytest.mark.parametrize("repetition", range(20))
def test_two_drivers_started_together_finish_one_root_together(
    repetition: int, quiet: Path, shared: list[Path]
) -> None:
    expect_the_same(shared[repetition], quiet)


def test_of_two_drivers_both_made_something(shared: list[Path]) -> None:
    assert {len(made_by(root)) for root in shared} == {2}
