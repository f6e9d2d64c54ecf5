"""A small rehearsal as people start it: real Ray nodes, real kills, injected faults of the store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def rehearse(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")}
    command = [sys.executable, "jobs/rehearsal.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True, check=False
    )


@pytest.mark.slow
def test_through_kills_and_faults_every_row_is_accounted_for(tmp_path: Path) -> None:
    """Of latency alone it lasts 9 s, and the first node is lost within these."""
    small = ("--shards", "160", "--cpus", "2", "--kill-every", "3", "--lose-every", "6")
    ended = rehearse("--root", str(tmp_path / "root"), *small)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "root.trial" / "report.json").read_bytes())
    assert found["kept"] + found["rejected"] == found["rows"] == 160 * 8
    assert found["faults"] == 0
    assert found["drivers_killed"] == 1
    assert min(found["workers_killed"], found["nodes_lost"]) >= 1
    assert found["errors_before_effect"] + found["errors_after_effect"] >= 1
    assert found["worker_calls"] > 160 * found["calls_of_a_quiet_shard"] > 0
    assert "every row in its place" in ended.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"root", "root.trial"}


@pytest.mark.parametrize("earlier", ["root/rows/plan.json", "root.trial/report.json"])
def test_an_earlier_rehearsal_is_not_measured_again(tmp_path: Path, earlier: str) -> None:
    (tmp_path / earlier).parent.mkdir(parents=True)
    (tmp_path / earlier).write_text("{}")
    ended = rehearse("--root", str(tmp_path / "root"))
    assert ended.returncode == 2
    assert f"remove {tmp_path / earlier.partition('/')[0]}, or" in ended.stderr
