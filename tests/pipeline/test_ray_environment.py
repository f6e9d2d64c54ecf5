"""Packages that cannot live beside ours: where pip cannot install them, the reason and a way out are told."""

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
    assert not list(tmp_path.iterdir())
