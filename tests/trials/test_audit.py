"""The audit finds what the frame must never do."""

import shutil
from pathlib import Path

import pytest

from pipeline.executor import LocalExecutor
from pipeline.run import Run
from trials.rehearsal.audit import Audit, audit
from trials.rehearsal.stages import ROWS, rehearsal_stages

SHARDS = 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    assert Run(str(root), rehearsal_stages(SHARDS)).execute(LocalExecutor()).exit_code == 0
    return root


def audit_after(change: str, whole: Path, tmp_path: Path) -> Audit:
    root = shutil.copytree(whole, tmp_path / "root")
    first = sorted((root / "marked" / "data").iterdir())[0]
    match change:
        case "a file twice":
            shutil.copy(first, first.with_name(f"{first.name.partition('-')[0]}-again.parquet"))
        case "a file lost":
            first.unlink()
        case "a file of another shard":
            shutil.copy(sorted((root / "marked" / "data").iterdir())[1], first)
        case "rejects lost":
            shutil.rmtree(root / "rows" / "rejects")
            (root / "rows" / "rejects").mkdir()
    return audit(str(root), SHARDS)


def test_an_undisturbed_run_has_no_faults(whole: Path, tmp_path: Path) -> None:
    found = audit_after("nothing", whole, tmp_path)
    assert found.faults == ()
    assert found.kept + found.rejected == found.rows == SHARDS * ROWS


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("a file twice", "0 of 160 rows are nowhere, 7 are there twice"),
        ("a file lost", "7 of 160 rows are nowhere, 0 are there twice"),
        ("a file of another shard", "marked: identity"),
        ("rejects lost", "after rows: 3 of 160 rows are nowhere"),
    ],
)
def test_a_row_out_of_its_place_is_found(whole: Path, tmp_path: Path, change: str, fault: str) -> None:
    assert any(fault in found for found in audit_after(change, whole, tmp_path).faults)
