"""What breaks under a run or after it is named, made again or accepted, and nothing else is touched."""

import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.commits import MANIFEST, STATS, StageFolder, Whole
from pipeline.errors import FingerprintMismatch
from pipeline.executor import LocalExecutor
from pipeline.reasons import Reason
from pipeline.run import MAX_IN_A_ROW, Run, RunReport
from pipeline.status import read_status
from tests.toys import ROWS, Crawled, Numbers, Roots, Squares, Total, everything_in, left_in, toy_stages

ROOT = Path(__file__).parents[2]


def run(root: Path, *stages: object, accept_failed: bool = False) -> RunReport:
    made = Run(str(root), list(stages or toy_stages()), accept_failed=accept_failed)  # type: ignore[arg-type]
    return made.execute(LocalExecutor())


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    run(tmp_path / "root")
    run(tmp_path / "quiet")
    return tmp_path / "root"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def record_of(root: Path, stage: str, shard: str) -> Path:
    return root / stage / "commits" / f"{shard}.json"


def records_in(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.glob("*/commits/*.json")}


def data_file(root: Path, stage: str) -> Path:
    return next((root / stage / "data").rglob("*000002-*.parquet"))


def reject_table(root: Path, stage: str) -> Path:
    return next((root / "numbers" / "rejects").glob("000002-*.parquet"))  # the stage that rejects


def commit_record(root: Path, stage: str) -> Path:
    return record_of(root, stage, "000002")


@pytest.mark.parametrize("fault", [Path.unlink, cut, empty])
@pytest.mark.parametrize("what", [data_file, reject_table, commit_record])
@pytest.mark.parametrize("stage", ["numbers", "squares"])
def test_a_broken_file_of_a_finished_root_is_named_and_its_shard_alone_made_again(
    stage: str,
    what: Callable[[Path, str], Path],
    fault: Callable[[Path], None],
    finished: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = records_in(finished)
    path = what(finished, stage)
    fault(path)
    with caplog.at_level(logging.WARNING, "pipeline"):
        assert run(finished).exit_code == 0
    assert path.name in caplog.text
    assert "shard 000002 is made again" in caplog.text
    assert everything_in(str(finished)) == everything_in(str(finished.parent / "quiet"))
    assert left_in(finished) == left_in(finished.parent / "quiet")
    changed = {path.name for path, data in records_in(finished).items() if before[path] != data}
    assert changed == {"000002.json"}


def test_a_foreign_record_in_a_finished_root_is_named_and_made_again_when_it_is_removed(finished: Path) -> None:
    record = record_of(finished, "squares", "000002")
    record.write_bytes(record_of(finished, "squares", "000001").read_bytes())
    with pytest.raises(Exception, match=r"squares/commits/000002\.json is the record of squares 000001"):
        Whole.open(str(finished), "squares").read("000002")
    record.unlink()
    assert run(finished).exit_code == 0
    assert everything_in(str(finished)) == everything_in(str(finished.parent / "quiet"))


@pytest.mark.parametrize("fault", [Path.unlink, cut, empty])
def test_statistics_that_are_gone_are_written_again(fault: Callable[[Path], None], finished: Path) -> None:
    before = (finished / "squares" / STATS).read_bytes(), records_in(finished)
    fault(finished / "squares" / STATS)
    assert run(finished).exit_code == 0
    assert ((finished / "squares" / STATS).read_bytes(), records_in(finished)) == before


def test_several_broken_files_of_an_unfinished_root_are_found_before_its_manifest_is_written(finished: Path) -> None:
    for stage in ("numbers", "squares", "total"):
        (finished / stage / MANIFEST).unlink()
    cut(data_file(finished, "squares"))
    data_file(finished, "numbers").unlink()
    Whole.open.cache_clear()
    assert run(finished).exit_code == 0
    assert everything_in(str(finished)) == everything_in(str(finished.parent / "quiet"))


def test_what_was_made_of_a_shard_that_comes_out_differently_is_made_again_too(tmp_path: Path) -> None:
    stages = Crawled(6), Squares(), Roots()
    run(tmp_path, *stages)
    before = records_in(tmp_path)
    next((tmp_path / "numbers" / "data").glob("000002-*.parquet")).unlink()
    assert run(tmp_path, *stages).exit_code == 0
    changed = {path.parts[-3:][::2] for path, data in records_in(tmp_path).items() if before[path] != data}
    # The roots are made of squares that came out the same.
    assert changed == {("numbers", "000002.json"), ("squares", "000002.json")}
    numbers, squares = (Whole.open(str(tmp_path), stage) for stage in ("numbers", "squares"))
    assert squares.manifest.inputs == {"numbers": numbers.identity}
    for shard in squares.shards:
        assert squares.read(shard).record.inputs["numbers"] == numbers.shards[shard].identity


def test_a_stage_made_of_the_whole_of_an_input_that_is_another_one_now_is_refused(tmp_path: Path) -> None:
    stages = Crawled(6), Total(reads="numbers")
    run(tmp_path, *stages)
    before = records_in(tmp_path / "total")
    next((tmp_path / "numbers" / "data").glob("crawled_000002-*")).unlink()
    with pytest.raises(FingerprintMismatch, match=r"total was made with other settings: inputs\.numbers is"):
        run(tmp_path, *stages)
    assert records_in(tmp_path / "total") == before


BAD = "000002"


def failing(fault: str = "raise") -> tuple[Numbers, Squares, Roots, Total]:
    return Numbers(6), Squares(bad_shard=BAD, fault=fault), Roots(), Total()


def test_an_accepted_shard_leaves_as_rejects_and_everything_behind_it_is_made_without_it(tmp_path: Path) -> None:
    report = run(tmp_path, *failing(), accept_failed=True)
    assert (report.exit_code, report.failed) == (0, {})
    lost = [f"n-{n:010d}" for n in range(2 * ROWS, 3 * ROWS) if n % 7]
    rejects = pq.read_table(next((tmp_path / "squares" / "rejects").glob(f"{BAD}-*.parquet"))).to_pylist()
    assert [row["pair_id"] for row in rejects] == lost
    assert {row["reason"] for row in rejects} == {Reason.SHARD_FAILED.value}
    assert "not to my taste" in rejects[0]["detail"]
    kept = [n for n in range(6 * ROWS) if n % 7 and n not in range(2 * ROWS, 3 * ROWS)]
    total = json.loads(Whole.open(str(tmp_path), "total").read("000000").path("total").read_text())
    assert total == sum(n * n for n in kept)
    assert Whole.open(str(tmp_path), "roots").tables("roots")["n"].to_pylist() == kept


def test_with_accepted_shards_the_rows_still_add_up(tmp_path: Path) -> None:
    run(tmp_path, *failing(), accept_failed=True)
    before = None
    for name in ("numbers", "squares", "roots"):
        stats = pq.read_table(tmp_path / name / STATS)
        rows_in, rows_out = (sum(stats[column].to_pylist()) for column in ("rows_in", "rows_out"))
        rejects = sum(pq.read_table(path).num_rows for path in (tmp_path / name / "rejects").glob("*.parquet"))
        assert rows_in == rows_out + rejects
        assert before in (None, rows_in)
        before = rows_out


def test_an_accepted_shard_stays_accepted(tmp_path: Path) -> None:
    run(tmp_path, *failing(), accept_failed=True)
    before = records_in(tmp_path)
    assert run(tmp_path, *failing(fault=""), accept_failed=True).exit_code == 0
    assert records_in(tmp_path) == before


def test_a_stage_that_cannot_do_without_a_shard_fails_in_spite_of_accept_failed(tmp_path: Path) -> None:
    class Demanding(Squares):
        def pair_ids(self, task: object) -> None:  # type: ignore[override]
            return None

    report = run(tmp_path, Numbers(6), Demanding(bad_shard=BAD, fault="raise"), accept_failed=True)
    assert list(report.failed) == [("squares", BAD)]


def test_a_shard_whose_rows_cannot_be_told_is_not_accepted(tmp_path: Path) -> None:
    run(tmp_path, Numbers(6))
    path = data_file(tmp_path, "numbers")
    path.write_bytes(bytes(path.stat().st_size))
    report = run(tmp_path, Numbers(6), Squares(), accept_failed=True)
    assert list(report.failed) == [("squares", BAD)]


class AllBad(Squares):
    def process(self, task: object, out: object, state: int) -> None:  # type: ignore[override]
        raise ValueError("no shard is to my taste")


def test_a_run_in_which_everything_fails_stops_and_accepts_nothing(tmp_path: Path) -> None:
    report = run(tmp_path, Numbers(50), AllBad(), accept_failed=True)
    assert report.exit_code == 1
    assert len(report.failed) == MAX_IN_A_ROW
    assert f"{MAX_IN_A_ROW} shards of squares failed and none was made between them" in str(report)
    assert not StageFolder(str(tmp_path), "squares").committed()
    assert run(tmp_path, Numbers(50), Squares()).exit_code == 0


def test_the_root_says_what_failed_and_why(tmp_path: Path) -> None:
    run(tmp_path, *failing())
    status = read_status(str(tmp_path))
    assert status is not None
    assert status.ended
    squares = next(stage for stage in status.stages if stage.stage == "squares")
    assert (squares.done, squares.shards, squares.running) == (5, 6, {})
    assert squares.failed == {BAD: f"ValueError: shard {BAD} is not to my taste"}


SMALL_DISK = """
import sys
from pipeline.errors import reporting_errors
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from tests.toys import toy_stages

@reporting_errors
def main(argv):
    report = Run(argv[0], toy_stages(200)).execute(LocalExecutor())
    print(report)
    return report.exit_code

sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_stops_the_run_and_the_same_command_continues_once_there_is_room(tmp_path: Path) -> None:
    # A file system of our own needs a namespace of our own.
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk (unshare -rm)")
    disk, program = tmp_path / "disk", tmp_path / "program.py"
    disk.mkdir()
    program.write_text(SMALL_DISK)
    command = f"{sys.executable} {program} {disk}/root"
    script = f"""
        mount -t tmpfs -o size=600k none {disk}
        {command} && echo exit code 0 || echo exit code $?
        mount -o remount,size=60m {disk}
        {command} && echo exit code 0 || echo exit code $?
        cp -r {disk}/root {tmp_path}/root
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        ["unshare", "-rm", "sh", "-ec", script], env=environment, check=True, text=True, stdout=-1, stderr=-2
    ).stdout
    assert f"Stopped: no room in {disk}/root" in said
    assert said.index("exit code 1") < said.index("exit code 0")
    run(tmp_path / "quiet", *toy_stages(200))
    assert everything_in(str(tmp_path / "root")) == everything_in(str(tmp_path / "quiet"))
    assert left_in(tmp_path / "root") == left_in(tmp_path / "quiet")


JUMPING_CLOCK = """
import datetime, random, sys, time
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from tests.toys import toy_stages

random.seed(int(sys.argv[2]))
time.time = lambda: random.uniform(0, 2**32)
time.time_ns = lambda: random.randrange(2**62)
class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(random.uniform(0, 2**32), tz)
datetime.datetime = Jumping
import pipeline.status
pipeline.status.datetime = Jumping
sys.exit(Run(sys.argv[1], toy_stages()).execute(LocalExecutor()).exit_code)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_clock_that_jumps_changes_nothing(seed: int, tmp_path: Path, finished: Path) -> None:
    """Between runs too: files that are older than what they were made of, or from tomorrow."""
    rng = random.Random(seed)
    for path in (path for path in finished.rglob("*") if rng.random() < 0.5):
        os.utime(path, (rng.uniform(0, 2**32),) * 2)
    record_of(finished, "squares", "000001").unlink()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for root in (finished, tmp_path / "new"):
        command = [sys.executable, "-c", JUMPING_CLOCK, str(root), str(seed)]
        assert subprocess.run(command, env=environment, check=False).returncode == 0
        assert everything_in(str(root)) == everything_in(str(tmp_path / "quiet"))
