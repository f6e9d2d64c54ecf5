"""A rehearsal that cannot do what it is for says so, and leaves no process behind."""

import os
from pathlib import Path

import pytest

from pipeline.errors import ShardFailed
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from trials.processes import descendants, title
from trials.rehearsal.stages import rehearsal_stages
from trials.rehearsal.supervisor import Rehearsal, rehearse


@pytest.mark.slow
def test_a_driver_that_ends_before_its_time_is_a_failure(tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    assert Run(root, rehearsal_stages(3)).execute(LocalExecutor()).exit_code == 0
    before = set(descendants(os.getpid()))
    with pytest.raises(ShardFailed, match=r"driver 0 ended \(exit code 1\) before it was to be killed"):
        rehearse(Rehearsal(root, shards=4, seed=0, kill_every_s=60, lose_every_s=60, own_nodes=True, cpus=1))
    left = set(descendants(os.getpid())) - before
    assert not [title(process) for process in left if "raylet" in title(process) or "python" in title(process)]
    assert "FingerprintMismatch" in (tmp_path / "root.trial" / "driver.log").read_text()
