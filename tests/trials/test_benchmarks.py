"""The parts of the benchmark, as small as they can be."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = """
from trials.benchmarks.frame import frame
from trials.benchmarks.recovery import Sleeps, recovery
from trials.cluster import FAST_HEALTH

fast = {"fast": FAST_HEALTH}
for part in (frame(10), recovery(Sleeps(24, 0.5), 1.0, fast, 1)):
    print(len(list(part)))
"""


@pytest.mark.slow
def test_a_part_leaves_nothing_in_the_way_of_the_next(tmp_path: Path) -> None:
    """In a process of their own, because the tests' may have joined a Ray already."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", PARTS], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
    )
    assert ended.stdout.split() == ["5", "2"], ended.stdout + ended.stderr
    assert list(tmp_path.iterdir()) == []
