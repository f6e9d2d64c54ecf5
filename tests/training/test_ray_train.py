"""On Ray Train a stage comes to what one process comes to, and outlives the loss of its workers."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load

from model.training.checkpoints import Checkpoints
from pipeline.recipe import Json
from tests.training.tiny import Tiny, result, train, updates_told
from trials.processes import descendants, title

ROOT = Path(__file__).parents[2]
UPDATES, EVERY = 24, 4
LIMIT_S = 240

pytestmark = pytest.mark.timeout(600)


def on_ray(tiny: Tiny, root: Path, **more: Json) -> dict[str, Json]:
    """Small steps: where a gradient is nearly nothing, Adam makes much of the order in which it was summed."""
    section = {"updates": UPDATES, "checkpoint_every": EVERY, "evaluate_every": UPDATES, "learning_rate": 1e-5}
    recipe = tiny.recipe(root, "language", **section)
    return recipe | {"engine": "ray", "cpus": 2, "workers": 2, "held_out": {"share": 0.15, "samples": 8}, **more}


@contextmanager
def job(recipe: dict[str, Json], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """jobs/train.py in a process of its own, and so in an embedded Ray of its own."""
    path, said = folder / "recipe.yaml", folder / "said"
    path.write_text(yaml.safe_dump(recipe))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    with said.open("w") as out:
        command = [sys.executable, str(ROOT / "jobs" / "train.py"), str(path)]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(60)


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    """The processes that train."""
    return [pid for pid in descendants(process.pid) if "RayTrainWorker" in title(pid)]


def until(what: str, seen: Callable[[], object], process: "subprocess.Popen[str]", said: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not seen():
        assert process.poll() is None, f"ended before {what}: {said.read_text()}"
        assert time.monotonic() < deadline, f"hangs before {what}: {said.read_text()}"
        time.sleep(0.005)


def test_two_workers_of_which_one_is_killed_come_to_what_one_process_comes_to(tiny: Tiny, tmp_path: Path) -> None:
    root = tmp_path / "ray"
    checkpoints = Checkpoints(f"{root}/language")
    with job(on_ray(tiny, root), tmp_path) as process:
        until("two checkpoints", lambda: len(checkpoints.records()) > 1, process, tmp_path / "said")
        pids = workers_of(process)
        assert len(pids) == 2
        os.kill(pids[-1], signal.SIGKILL)
        killed_at = checkpoints.latest()
        assert process.wait(LIMIT_S) == 0, (tmp_path / "said").read_text()
    said = (tmp_path / "said").read_text()
    assert killed_at is not None
    assert killed_at.update < UPDATES
    (resumed_at,) = map(int, re.findall(r"language goes on behind update (\d+) of", said))
    assert killed_at.update <= resumed_at < UPDATES
    assert f"language: all updates are made; its result is update {UPDATES}" in said
    assert "Failed to query" not in said
    assert "Reporting training result" not in said
    train(on_ray(tiny, tmp_path / "local", engine="local"))
    due, made = (load(result(folder, "language")["model/model.safetensors"]) for folder in (tmp_path / "local", root))
    assert due.keys() == made.keys()
    assert max(float((due[name] - made[name]).abs().max()) for name in due) < 1e-5
    losses = [
        [line["losses"]["pairs"] for line in updates_told(folder, "language") if "losses" in line]
        for folder in (root, tmp_path / "local")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert len(losses[0]) == UPDATES


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["all", "none"])
def test_as_many_workers_as_there_is_room_for_begin(lost: str, tiny: Tiny, tmp_path: Path) -> None:
    """workers=[1, 2] on one CPU: one begins; and where all are lost, all come again."""
    root = tmp_path / "ray"
    checkpoints = Checkpoints(f"{root}/language")
    with job(on_ray(tiny, root, workers=[1, 2], cpus=1), tmp_path) as process:
        until("a checkpoint", lambda: checkpoints.latest(), process, tmp_path / "said")
        pids = workers_of(process)
        assert len(pids) == 1
        if lost == "all":
            os.kill(pids[0], signal.SIGKILL)
        assert process.wait(LIMIT_S) == 0, (tmp_path / "said").read_text()
    finished = checkpoints.finished()
    assert finished is not None
    assert finished.update == UPDATES


@pytest.mark.slow
def test_two_workers_are_begun_where_there_is_room(tiny: Tiny, tmp_path: Path) -> None:
    with job(on_ray(tiny, tmp_path / "ray", workers=[1, 2]), tmp_path) as process:
        until("two workers", lambda: len(workers_of(process)) == 2, process, tmp_path / "said")
        assert process.wait(LIMIT_S) == 0, (tmp_path / "said").read_text()


@pytest.mark.slow
def test_more_losses_than_the_recipe_allows_end_the_run_and_the_same_command_goes_on(
    tiny: Tiny, tmp_path: Path
) -> None:
    root = tmp_path / "ray"
    checkpoints = Checkpoints(f"{root}/language")
    recipe = on_ray(tiny, root, workers=1, failures=0)
    with job(recipe, tmp_path) as process:
        until("a checkpoint", lambda: checkpoints.latest(), process, tmp_path / "said")
        os.kill(workers_of(process)[0], signal.SIGKILL)
        assert process.wait(LIMIT_S) == 1
    assert "training stopped: " in (tmp_path / "said").read_text()
    with job(recipe, tmp_path) as process:
        assert process.wait(LIMIT_S) == 0, (tmp_path / "said").read_text()
    assert "language goes on behind update" in (tmp_path / "said").read_text()
