"""Processes that die while they save, by SIGKILL, at a step of their work with files.

    python -m tests.training.killed saves FOLDER        FOLDER/<n>: a save that died before its n-th step, for all n
    python -m tests.training.killed stage RECIPE [STEP…]  a stage of the recipe, dead before these steps, one by one

What is imported takes seconds, so that one process does so and forks those that die. A step is what Python tells its
auditors: opening a file to write, renaming, linking, removing, making a folder.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from model.training.checkpoints import STATE, Checkpoints

CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
SURVIVED = 0


def die_before(step: Callable[[str, str], bool]) -> None:
    """step: told what is about to happen and to which path; True: the process dies instead."""

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in CHANGES or writes) and step(event, str(arguments[0])):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)


def nth(number: int, folder: Path) -> Callable[[str, str], bool]:
    """The number-th change below a folder, counted from 1."""
    met = 0

    def is_it(event: str, path: str) -> bool:
        nonlocal met
        # What is removed by a walk through folders has a path relative to its folder.
        met += path.startswith(str(folder)) or not path.startswith("/")
        return met == number

    return is_it


def forked(work: Callable[[], object]) -> int:
    """→ the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(SURVIVED)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def save(folder: Path, update: int, *, score: float | None = None, keep: int = 1) -> None:
    """A checkpoint as a stage writes it, with files that tell the update."""
    checkpoints = Checkpoints(str(folder))
    with checkpoints.writing(update, score) as made:
        (made / "model" / "deep").mkdir(parents=True)
        for name in ("model/deep/weights", "model/config", "optimizer"):
            (made / name).write_bytes(f"{name} {update}".encode() * 100)
        (made / STATE).write_text(json.dumps({"update": update}))
    checkpoints.prune(keep)


def saves(folder: Path) -> None:
    begun, number, ended = folder / "begun", 0, signal.SIGKILL.value
    for update in (10, 20):
        save(begun, update, keep=2)
    while ended:
        number += 1
        root = folder / f"{number:03d}"
        shutil.copytree(begun, root)

        def last(root: Path = root, number: int = number) -> None:
            die_before(nth(number, root))
            save(root, 30)

        ended = forked(last)
    shutil.rmtree(begun)


def stage(recipe: Path, steps: list[str]) -> None:
    """steps: event:end of the path:how often it is met before, such as os.link:.json:1."""
    import safetensors.torch  # noqa: F401 - so that none of those that are forked has to
    import tokenizers  # noqa: F401
    import torch
    import torch.utils.tensorboard  # noqa: F401

    import model.training.sources  # noqa: F401
    from model.training.launch import launch
    from model.training.recipe import TrainRecipe
    from pipeline.recipe import load_recipe

    torch.set_num_threads(1)
    for step in [*steps, ""]:
        wanted, _, often = step.rpartition(":")
        event, _, end = wanted.partition(":")
        left = int(often or 0)

        def is_it(met: str, path: str, event: str = event, end: str = end) -> bool:
            nonlocal left
            hit = met == event and "/tmp/" in path and path.endswith(end)
            left -= hit
            return hit and left < 0

        def work(step: str = step, is_it: Callable[[str, str], bool] = is_it) -> None:
            if step:
                die_before(is_it)
            launch(load_recipe(TrainRecipe, recipe))

        ended = forked(work)
        assert ended == (signal.SIGKILL.value if step else 0), f"{step}: ended by {ended}"


if __name__ == "__main__":
    what, path, *rest = sys.argv[1:]
    if what == "saves":
        saves(Path(path))
    else:
        stage(Path(path), rest)
