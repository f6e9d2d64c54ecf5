"""Packages that cannot live beside ours: where pip cannot install them, the reason and a way out are told."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import ray_environment
from pipeline.errors import RecipeError

NOWHERE = "nothing @ file:///nowhere/nothing-1.0-py3-none-any.whl"  # fails without a package index, too


@pytest.mark.slow
def test_what_pip_said_is_told_with_the_packages_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_environment, "ENVIRONMENTS", tmp_path)
    with pytest.raises(RecipeError) as raised:
        ray_environment.call_with_packages("nothing:at_all", {}, [NOWHERE], instead="set index.factory to auto")
    said = str(raised.value)
    assert f"no environment with {NOWHERE} can be made: " in said
    assert "No such file or directory" in said
    assert said.endswith("Or set index.factory to auto.")
    assert "\n" not in said
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_two_drivers_make_an_environment_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2, timeout=0.5)  # both would be at it, if nothing kept them apart
    made: list[Path] = []

    def make(*command: str | Path) -> None:
        if command[1:3] == ("-m", "venv"):
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait()
            made.append(Path(command[3]))
            Path(command[3], "bin").mkdir(parents=True)

    monkeypatch.setattr(ray_environment, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(ray_environment, "_run", make)
    with ThreadPoolExecutor(2) as drivers:
        first, second = drivers.map(ray_environment.python_with, [["this"], ["this"]])
    assert first == second
    assert first.parent.is_dir()
    assert len(made) == 1
