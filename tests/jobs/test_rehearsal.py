"""A small rehearsal as people start it: real Ray nodes, real kills, injected faults of the store."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rehearse(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")}
    command = [sys.executable, "jobs/rehearsal.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True, check=False
    )


def test_through_kills_and_faults_every_row_is_accounted_for(tmp_path: Path) -> None:
    root = tmp_path / "root"
    ended = rehearse("--root", str(root), "--shards", "60", "--kill-every", "2", "--lose-every", "10")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "root.json").read_bytes())
    assert found["kept"] + found["rejected"] == found["rows"] == 60 * 8
    assert found["faults"] == 0
    assert found["drivers_killed"] == 1
    assert "every row in its place" in ended.stdout


def test_an_earlier_rehearsal_is_not_measured_again(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "plan.json").write_text("{}")
    ended = rehearse("--root", str(tmp_path))
    assert ended.returncode == 2
    assert "holds a rehearsal already" in ended.stderr
