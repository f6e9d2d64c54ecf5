"""The audit finds what the frame must never do."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
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


def first(folder: Path) -> Path:
    return min(folder.iterdir())


def change_json(path: Path, *keys: str, to: object) -> None:
    value = found = json.loads(path.read_bytes())
    for key in keys[:-1]:
        found = found[key]
    found[keys[-1]] = to
    path.write_text(json.dumps(value))


def change_column(path: Path, name: str, change: Callable[[list[object]], list[object]]) -> None:
    table = pq.read_table(path)
    at = table.schema.get_field_index(name)
    changed = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
    pq.write_table(table.set_column(at, table.schema.field(name), changed), path)


def file_twice(root: Path) -> None:
    data = first(root / "marked" / "data")
    shutil.copy(data, data.with_name(f"{data.name.partition('-')[0]}-again.parquet"))


def file_lost(root: Path) -> None:
    first(root / "marked" / "data").unlink()


def file_of_another_shard(root: Path) -> None:
    one, other, *_ = sorted((root / "marked" / "data").iterdir())
    shutil.copy(other, one)


def file_cut_short(root: Path) -> None:
    data = first(root / "rows" / "data")
    data.write_bytes(data.read_bytes()[:-20])


def file_of_no_shard(root: Path) -> None:
    (root / "rows" / "data" / "000999-dead.parquet").write_bytes(b"")


def unknown_row(root: Path) -> None:
    change_column(first(root / "rows" / "data"), "pair_id", lambda ids: ["rehearsal-0000000160", *ids[1:]])


def rejects_lost(root: Path) -> None:
    shutil.rmtree(root / "rows" / "rejects")


def another_reason(root: Path) -> None:
    change_column(first(root / "rows" / "rejects"), "reason", lambda reasons: ["not_utf8" for _ in reasons])


def another_reject(root: Path) -> None:
    change_column(first(root / "rows" / "rejects"), "pair_id", lambda ids: ["rehearsal-0000000001", *ids[1:]])


def another_total(root: Path) -> None:
    change_json(first(root / "totals" / "data"), "sum", to=1)


def another_identity(root: Path) -> None:
    change_json(root / "marked" / "manifest.json", "identity", to="0" * 64)


def another_summary(root: Path) -> None:
    change_json(root / "marked" / "manifest.json", "shards", "000003", "rows_out", to=99)


def no_manifest(root: Path) -> None:
    (root / "marked" / "manifest.json").unlink()


def another_count(root: Path) -> None:
    change_json(root / "marked" / "commits" / "000003.json", "rows_out", to=99)


def another_checksum(root: Path) -> None:
    change_json(root / "marked" / "commits" / "000003.json", "files", "rows", "sha256", to="0" * 64)


def record_cut_short(root: Path) -> None:
    record = root / "marked" / "commits" / "000003.json"
    record.write_bytes(record.read_bytes()[:-20])


def no_record(root: Path) -> None:
    (root / "marked" / "commits" / "000003.json").unlink()


def file_named_twice(root: Path) -> None:
    commits = root / "marked" / "commits"
    theirs = json.loads((commits / "000004.json").read_bytes())["files"]
    change_json(commits / "000003.json", "files", to=theirs)


def another_statistic(root: Path) -> None:
    change_column(root / "rows" / "stats.parquet", "rows_out", lambda rows: [*rows[:3], 99, *rows[4:]])


def no_statistics(root: Path) -> None:
    (root / "rows" / "stats.parquet").write_bytes(b"PAR1")


def statistics_of_other_shards(root: Path) -> None:
    change_column(root / "rows" / "stats.parquet", "shard", lambda shards: [*shards[1:], shards[0]])


def audit_after(change: Callable[[Path], object], whole: Path, tmp_path: Path) -> Audit:
    root = shutil.copytree(whole, tmp_path / "root")
    change(root)
    with ThreadPoolExecutor(1) as pool:
        return audit(str(root), SHARDS, pool)


def test_an_undisturbed_run_has_no_faults(whole: Path, tmp_path: Path) -> None:
    found = audit_after(lambda root: None, whole, tmp_path)
    assert found.faults == ()
    assert found.kept + found.rejected == found.rows == SHARDS * ROWS
    assert found.files == sum(1 for _ in whole.glob("*/*/*"))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (file_twice, "0 of 160 rows are nowhere, 7 are there twice"),
        (file_lost, "7 of 160 rows are nowhere, 0 are there twice"),
        (file_lost, "and there is none"),
        (file_of_another_shard, "is not what it must be"),
        (file_cut_short, "cannot be read"),
        (file_of_no_shard, "rows/data/000999-dead.parquet belongs to no shard"),
        (unknown_row, "holds 'rehearsal-0000000160', which is no row of this run"),
        (rejects_lost, "after rows: 3 of 160 rows are nowhere"),
        (another_reason, "rejects [('rehearsal-0000000000', 'not_utf8')], not [('rehearsal-0000000000', 'malf"),
        (another_reject, "rejects [('rehearsal-0000000001', 'malformed_row')], not"),
        (another_total, "totals/data/000000-"),
        (another_identity, "marked/manifest.json: identity is '0000"),
        (another_summary, "marked/manifest.json: what it says of shard 000003"),
        (no_manifest, "marked/manifest.json cannot be read"),
        (another_count, "marked/commits/000003.json: rows_out is 99, not"),
        (another_checksum, "marked/commits/000003.json names"),
        (record_cut_short, "marked/commits/000003.json is missing or cannot be read"),
        (no_record, "marked/commits/000003.json is missing or cannot be read"),
        (file_named_twice, "marked/commits/000003.json names {'rows': {'path': 'data/000004"),
        (another_statistic, "rows/stats.parquet: 000003: rows_out is 99, not"),
        (no_statistics, "rows/stats.parquet cannot be read"),
        (statistics_of_other_shards, "rows/stats.parquet lists other shards"),
    ],
)
def test_every_change_of_a_finished_run_is_found(
    whole: Path, tmp_path: Path, change: Callable[[Path], object], fault: str
) -> None:
    found = audit_after(change, whole, tmp_path).faults
    assert any(fault in said for said in found), found
