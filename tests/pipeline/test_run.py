"""The three promises: a shard is done or it is not, every row is accounted for, nothing finished is done again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.commits import MANIFEST, STATS, StageFolder, Whole
from pipeline.errors import FingerprintMismatch, InputError, RecipeError
from pipeline.executor import Executor, LocalExecutor
from pipeline.failpoints import STEPS
from pipeline.run import Base, Run, RunReport
from pipeline.stage import Shard
from pipeline.storage import LocalStore
from pipeline.writer import Job, ShardWriter, Task, make_shard
from tests.toys import ROWS, Numbers, Squares, Total, everything_in, left_in, toy_stages


def run(root: Path, *stages: object, base: Base | None = None, executor: Executor | None = None) -> RunReport:
    return Run(str(root), list(stages or toy_stages()), base).execute(executor or LocalExecutor())  # type: ignore[arg-type]


def total_of(root: Path) -> int:
    return int(json.loads(Whole.open(str(root), "total").read("000000").path("total").read_text()))


def test_a_run_makes_every_stage_and_says_so(tmp_path: Path) -> None:
    report = run(tmp_path)
    assert (report.exit_code, report.failed, report.unfinished) == (0, {}, ())
    assert total_of(tmp_path) == sum(n * n for n in range(6 * ROWS) if n % 7)


def test_kept_and_rejects_are_the_rows_that_went_in_at_every_stage(tmp_path: Path) -> None:
    run(tmp_path)
    before = None
    for name in ("numbers", "squares", "total"):
        stats = pq.read_table(tmp_path / name / STATS).to_pylist()
        rows_in, rows_out = sum(s["rows_in"] for s in stats), sum(s["rows_out"] for s in stats)
        rejects = sum(pq.read_table(p).num_rows for p in (tmp_path / name / "rejects").glob("*.parquet"))
        assert rows_in == rows_out + rejects
        assert before in (None, rows_in)
        before = rows_out


def test_a_stage_that_loses_a_row_is_caught(tmp_path: Path) -> None:
    report = run(tmp_path, Numbers(3), Squares(bad_shard="000001", fault="lose"))
    assert list(report.failed) == [("squares", "000001")]
    assert "1 lost" in str(report)


def test_a_second_run_does_nothing_again(tmp_path: Path) -> None:
    run(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert run(tmp_path).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == times


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("stage", ["numbers", "squares", "total"])
def test_killed_at_any_step_and_run_again_the_root_is_the_same(stage: str, step: str, tmp_path: Path) -> None:
    code = (
        "from pipeline.run import Run; from pipeline.executor import LocalExecutor; from tests.toys import toy_stages;"
        f"Run({str(tmp_path / 'killed')!r}, toy_stages()).execute(LocalExecutor())"
    )
    environment = os.environ | {"REVILM_FAILPOINT": f"{stage}:{step}", "PYTHONPATH": str(Path(__file__).parents[2])}
    died = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    assert run(tmp_path / "killed").exit_code == 0
    run(tmp_path / "quiet")
    assert everything_in(str(tmp_path / "killed")) == everything_in(str(tmp_path / "quiet"))
    assert left_in(tmp_path / "killed") == left_in(tmp_path / "quiet")


def test_a_raise_is_tried_once_more_then_the_others_go_on(tmp_path: Path) -> None:
    bad = tmp_path / "still bad"
    bad.touch()
    stages = Numbers(4), Squares(bad_shard="000002", fault="raise", while_exists=str(bad)), Total()
    report = run(tmp_path / "root", *stages)
    assert (report.exit_code, report.unfinished) == (1, ("squares", "total"))
    assert "squares shard 000002 failed: ValueError: shard 000002 is not to my taste" in str(report)
    assert StageFolder(str(tmp_path / "root"), "squares").committed() == {"000000", "000001", "000003"}
    bad.unlink()
    assert run(tmp_path / "root", *stages).exit_code == 0
    run(tmp_path / "quiet", Numbers(4), Squares(), Total())
    assert everything_in(str(tmp_path / "root")) == everything_in(str(tmp_path / "quiet"))


def test_another_setting_is_refused_by_name_and_nothing_is_changed(tmp_path: Path) -> None:
    run(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FingerprintMismatch, match="squares was made with other settings: factor is 1 there and 3 here"):
        run(tmp_path, Numbers(6), Squares(factor=3), Total())
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_on_a_base_says_which_setting_keeps_it_from_taking_a_stage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path / "old", Numbers(6), Squares(), Total())
    with caplog.at_level("INFO", "pipeline"):
        run(tmp_path / "new", Numbers(6), Squares(factor=3), Total(), base=Base(root=str(tmp_path / "old")))
    said = [message for message in caplog.messages if "is not taken from" in message]
    assert said == [f"squares is not taken from {tmp_path / 'old'}: factor is 1 there and 3 here"]


def test_a_run_on_a_base_makes_only_what_differs(tmp_path: Path) -> None:
    run(tmp_path / "old")
    base = Base(root=str(tmp_path / "old"))
    for _ in range(2):
        assert run(tmp_path / "new", Numbers(6), Squares(factor=3), Total(), base=base).exit_code == 0
    assert not (tmp_path / "new" / "numbers" / "commits").exists()
    assert total_of(tmp_path / "new") == 3 * total_of(tmp_path / "old")


def test_an_accepted_stage_is_taken_whatever_its_settings(tmp_path: Path) -> None:
    run(tmp_path / "old", Numbers(6), Squares(factor=3), Total())
    base = Base(root=str(tmp_path / "old"), accept=("squares",))
    run(tmp_path / "new", base=base)
    assert total_of(tmp_path / "new") == total_of(tmp_path / "old")
    taken = StageFolder(str(tmp_path / "new"), "squares").taken()
    assert taken is not None
    assert taken.fingerprint != taken.wanted


@pytest.mark.parametrize("accept", [("cubes",), ("total",)])
def test_a_base_that_cannot_give_what_is_asked_is_refused(accept: tuple[str, ...], tmp_path: Path) -> None:
    run(tmp_path / "old", Numbers(6), Squares())
    with pytest.raises(RecipeError, match=accept[0]):
        run(tmp_path / "new", Numbers(9), Squares(), Total(), base=Base(root=str(tmp_path / "old"), accept=accept))
    assert not (tmp_path / "new").exists()


def test_the_first_record_wins_and_the_loser_leaves_nothing(tmp_path: Path) -> None:
    folder = StageFolder(str(tmp_path), "numbers")
    job = Job(Numbers(1), folder, {}, "f", {"rows": ROWS})
    shard = Shard("000000", {"first": 0})

    class Overtaken(Numbers):
        def process(self, task: Task, out: ShardWriter, state: None) -> object:  # type: ignore[override]
            counts = super().process(task, out, state)
            winner.append(make_shard(job, shard, None))
            return counts

    winner: list[object] = []
    returned = make_shard(Job(Overtaken(1), folder, {}, "f", {"rows": ROWS}), shard, None)
    assert returned == winner[0]
    assert len(list((tmp_path / "numbers" / "data").iterdir())) == 1
    assert len(list((tmp_path / "numbers" / "rejects").iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"{}", None])
def test_a_record_that_cannot_be_believed_is_made_again(content: bytes | None, tmp_path: Path) -> None:
    run(tmp_path / "root")
    commits = tmp_path / "root" / "squares" / "commits"
    foreign = (commits / "000000.json").read_bytes()
    (commits / "000003.json").write_bytes(foreign if content is None else content)
    for stage in ("squares", "total"):
        (tmp_path / "root" / stage / MANIFEST).unlink()
    Whole.open.cache_clear()  # this process has seen the manifests before they went
    assert run(tmp_path / "root").exit_code == 0
    run(tmp_path / "quiet")
    assert everything_in(str(tmp_path / "root")) == everything_in(str(tmp_path / "quiet"))


def test_a_broken_data_file_is_named(tmp_path: Path) -> None:
    run(tmp_path)
    squares = Whole.open(str(tmp_path), "squares")
    path = squares.read("000001").path("squares")
    path.write_bytes(b"short")
    with pytest.raises(InputError, match=f"{path.name} has 5 bytes instead of .*shard 000001 of squares is broken"):
        squares.read("000001").table("squares")
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        squares.read("000001").table("squares")


def test_what_a_plan_resolved_is_obeyed_on_resume(tmp_path: Path) -> None:
    run(tmp_path, Numbers(2))
    (tmp_path / "numbers" / MANIFEST).unlink()
    (tmp_path / "numbers" / "commits" / "000001.json").unlink()
    Whole.open.cache_clear()
    run(tmp_path, Numbers(2, rows=3))
    assert [s.rows_in for s in Whole.open(str(tmp_path), "numbers").shards.values()] == [ROWS, ROWS]


def test_two_drivers_on_one_root_finish_it_together(tmp_path: Path) -> None:
    code = (
        "from pipeline.run import Run; from pipeline.executor import LocalExecutor; from tests.toys import toy_stages;"
        f"raise SystemExit(Run({str(tmp_path / 'shared')!r}, toy_stages(40)).execute(LocalExecutor()).exit_code)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    drivers = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [driver.wait() for driver in drivers] == [0, 0, 0]
    run(tmp_path / "quiet", *toy_stages(40))
    assert everything_in(str(tmp_path / "shared")) == everything_in(str(tmp_path / "quiet"))


def test_a_root_on_another_file_system_is_the_same(tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").store.clear()
    Run("memory://bucket/root", toy_stages()).execute(LocalExecutor())
    run(tmp_path)
    assert everything_in("memory://bucket/root") == everything_in(str(tmp_path))


def test_a_create_whose_answer_was_lost_keeps_its_files(tmp_path: Path) -> None:
    class Twice(LocalStore):
        def create(self, path: str, data: bytes) -> bool:
            super().create(path, data)
            return super().create(path, data)  # as a client does whose first answer was lost

    folder = StageFolder(str(tmp_path), "numbers")
    folder.__dict__["store"] = Twice(str(tmp_path / "numbers"))
    record = make_shard(Job(Numbers(1), folder, {}, "f", {"rows": ROWS}), Shard("000000", {"first": 0}), None)
    assert folder.store.size(record.files["numbers"].path)


def test_a_base_made_anew_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    run(tmp_path / "old")
    run(tmp_path / "new", base=Base(root=str(tmp_path / "old")))
    manifest = tmp_path / "old" / "squares" / MANIFEST
    manifest.write_text(manifest.read_text().replace(Whole.open(str(tmp_path / "old"), "squares").identity, "0" * 64))
    Whole.open.cache_clear()
    with pytest.raises(InputError, match="squares was taken from .*made anew since"):
        Whole.open(str(tmp_path / "new"), "squares")


def test_a_taken_stage_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(Path("old"))
    run(Path("new"), base=Base(root="old"))
    monkeypatch.chdir("/")
    assert total_of(tmp_path / "new") == total_of(tmp_path / "old")


def test_chained_stages_do_not_wait_for_each_other(tmp_path: Path) -> None:
    order = []

    class Watching(LocalExecutor):
        def submit(self, call):  # type: ignore[no-untyped-def]
            order.append(call.name)
            super().submit(call)

    run(tmp_path, executor=Watching())
    assert order[:4] == ["numbers:000000", "squares:000000", "numbers:000001", "squares:000001"]


def test_a_stage_that_needs_an_unknown_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="squares needs numbers"):
        run(tmp_path, Squares())
    assert not list(tmp_path.iterdir())
