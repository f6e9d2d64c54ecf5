"""Every step of the commit × every stage of the main job: killed there and run again, the root is the same."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs import build_index
from pipeline.failpoints import STEPS
from tests.jobs.main_job import AFTER, CRAWL, RECIPE, small
from tests.ports import free_ports
from tests.toys import data_of

ROOT = Path(__file__).parents[2]
STAGES = (*CRAWL, *AFTER[:2], "filter_duplicates", *AFTER[2:])


@dataclass(frozen=True)
class Quiet:
    """An undisturbed run, and the lists that it was made of, which bear the port."""

    folder: Path
    port: int

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def arguments(self, root: Path) -> list[str]:
        """Of the main job with every stage that it has."""
        return [RECIPE, *small(root, self.folder / "lists", self.port), "filter.duplicates=drop"]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Quiet:
    quiet = Quiet(tmp_path_factory.mktemp("quiet"), free_ports(1)[0])
    assert build_index.main(quiet.arguments(quiet.root)) == 0
    assert {path.parent.name for path in quiet.root.glob("*/plan.json")} == set(STAGES)
    return quiet


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_step_of_any_stage_and_run_again_the_root_is_the_same(
    stage: str, step: str, quiet: Quiet, tmp_path: Path
) -> None:
    for done in STAGES[: STAGES.index(stage)]:
        shutil.copytree(quiet.root / done, tmp_path / done)
    command = [sys.executable, "jobs/build_index.py", *quiet.arguments(tmp_path)]
    environment = os.environ | {"REVILM_FAILPOINT": f"{stage}:{step}", "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == -signal.SIGKILL
    assert build_index.main(quiet.arguments(tmp_path)) == 0
    for made in STAGES:
        for (shard, name), data in data_of(str(quiet.root), made).items():
            if (made, name) != ("download", "pairs"):  # that table holds the milliseconds of each fetch
                assert data_of(str(tmp_path), made)[shard, name] == data, (made, shard, name)
