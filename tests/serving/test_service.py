"""jobs/serve.py as a person runs it: on Ray Serve, killed at, and ended by a signal."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.conftest import Made
from tests.serving.serving import asked
from trials.benchmarks.service import ROOT, load, running
from trials.processes import descendants

pytestmark = pytest.mark.slow
LIMIT_S = 120
LASTING_S = 10.0


def wait_until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.1)


@pytest.mark.parametrize("replicas", [1, 2])
def test_every_request_ends_and_one_retry_loses_none_when_a_replica_is_killed(replicas: int, made: Made) -> None:
    with running(made.checkpoint, made.index, "--replicas", str(replicas)) as some:
        assert len(some.replicas()) == replicas
        told = load(some, str(made.pictures[0].parent), 8, LASTING_S, kill_after_s=2.0)
        fates = {each.outcomes for each in told}
        assert fates == {("200",), ("503 unavailable", "200")}
        wait_until(lambda: len(some.replicas()) == replicas)
        wait_until(lambda: asked(f"{some.address}/health").status == 200)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_nothing_is_left(ending: signal.Signals, made: Made) -> None:
    with running(made.checkpoint, made.index) as one:
        found = asked(f"{one.address}/caption", made.pictures[0].read_bytes())
        assert len(found.json["neighbors"]) == made.neighbors
        started = [one.process, *descendants(one.process)]
        os.kill(one.process, ending)
        wait_until(lambda: not any(map(alive, started)))


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_checkpoint_that_is_not_there_is_told_in_one_line(made: Made) -> None:
    command = [sys.executable, str(ROOT / "jobs" / "serve.py"), "/nowhere", "--index", made.index, "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    ended = subprocess.run(command, env=environment, text=True, capture_output=True, check=False, timeout=LIMIT_S)
    assert ended.returncode == 2
    assert "/nowhere is not finished" in ended.stderr.splitlines()[-1]
    assert ended.stdout == ""
