"""What breaks under a run or after it is named, made again or accepted, and nothing else is touched."""

import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.commits import MANIFEST, STATS, StageFolder, Whole
from pipeline.errors import FingerprintMismatch, InputError
from pipeline.executor import LocalExecutor
from pipeline.integrity import damage
from pipeline.reasons import Reason
from pipeline.run import Base, Run, RunReport
from pipeline.stage import Counts
from pipeline.status import read_status
from pipeline.storage import LocalStore
from pipeline.writer import ShardWriter, Task
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


def test_a_root_that_is_refused_is_not_mended_either(finished: Path) -> None:
    data_file(finished, "numbers").unlink()
    before = sorted(finished.rglob("*"))
    with pytest.raises(FingerprintMismatch, match="factor is 1 there and 3 here"):
        run(finished, Numbers(6), Squares(factor=3), Total())
    assert sorted(finished.rglob("*")) == before


def test_a_base_that_was_made_anew_is_refused_before_anything_is_made_on_it(tmp_path: Path) -> None:
    run(tmp_path / "base", Crawled(6))
    base = Base(root=str(tmp_path / "base"))
    Run(str(tmp_path / "new"), [Crawled(6), Squares()], base).execute(LocalExecutor())
    next((tmp_path / "base" / "numbers" / "data").glob("crawled_000002-*")).unlink()
    run(tmp_path / "base", Crawled(6))
    before = sorted((tmp_path / "new").rglob("*"))
    with pytest.raises(InputError, match=r"numbers was taken from .*made anew since"):
        Run(str(tmp_path / "new"), [Crawled(6), Squares()], base).execute(LocalExecutor())
    assert sorted((tmp_path / "new").rglob("*")) == before


@pytest.mark.parametrize("whole", [True, False])
def test_a_disk_that_is_missing_is_not_taken_for_files_to_make_again(whole: bool, finished: Path) -> None:
    if not whole:
        for stage in ("numbers", "squares", "total"):
            (finished / stage / MANIFEST).unlink()
        Whole.open.cache_clear()
    (finished / "numbers" / "data").rename(finished / "elsewhere")
    before = records_in(finished)
    with pytest.raises(InputError, match="more than 2 of 6 shards are broken .* Is a disk or a mount missing"):
        run(finished)
    assert records_in(finished) == before
    (finished / "numbers" / "data").symlink_to(finished / "elsewhere")
    assert run(finished).exit_code == 0
    assert records_in(finished) == before


def test_a_listing_that_lags_costs_nothing(finished: Path) -> None:
    class Lagging(LocalStore):
        def list(self, folder: str) -> dict[str, int]:
            return {path: size for path, size in super().list(folder).items() if "000002" not in path}

    folder = StageFolder(str(finished), "squares")
    folder.__dict__["store"] = Lagging(str(finished / "squares"))
    manifest = folder.manifest()
    assert manifest is not None
    assert damage(folder, manifest) == {}


def test_a_plan_without_shards_is_whole_at_once(tmp_path: Path) -> None:
    assert run(tmp_path, Numbers(0), Squares()).exit_code == 0
    assert Whole.open(str(tmp_path), "squares").rows == 0


def test_another_driver_that_mends_an_input_meanwhile_is_noticed(tmp_path: Path) -> None:
    """Not by making shards again for ever, nor by a manifest of an input that is no more."""
    run(tmp_path, Crawled(6))

    class Meanwhile(Squares):
        def process(self, task: Task, out: ShardWriter, state: int) -> Counts:
            if task.id == "000004":
                next((tmp_path / "numbers" / "data").glob("crawled_000002-*")).unlink()
                Run(str(tmp_path), [Crawled(6)]).execute(LocalExecutor())
            return super().process(task, out, state)

    with pytest.raises(InputError, match=r"numbers is being made anew by another driver"):
        run(tmp_path, Crawled(6), Meanwhile())
    assert StageFolder(str(tmp_path), "squares").manifest() is None
    assert run(tmp_path, Crawled(6), Squares()).exit_code == 0


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


@dataclass(frozen=True)
class SomeBad(Squares):
    """Fails for good at some of its shards; where it cannot be opened, at all."""

    bad: frozenset[int] = frozenset()
    opens: bool = True
    tries: list[str] = field(default_factory=list)

    def open(self, task: Task) -> int:
        if not self.opens:
            raise OSError("no GPU here")
        return super().open(task)

    def process(self, task: Task, out: ShardWriter, state: int) -> Counts:
        self.tries.append(task.id)
        if int(task.id) in self.bad:
            raise ValueError("not to my taste")
        return super().process(task, out, state)


def test_a_run_in_which_everything_fails_stops_soon_and_accepts_nothing(tmp_path: Path) -> None:
    run(tmp_path, Numbers(500))
    squares = SomeBad(bad=frozenset(range(500)))
    report = run(tmp_path, Numbers(500), squares, accept_failed=True)
    assert report.exit_code == 1
    assert "21 shards of squares failed and none was made between them" in str(report)
    assert len(squares.tries) < 50
    assert not StageFolder(str(tmp_path), "squares").committed()
    assert run(tmp_path, Numbers(500), Squares()).exit_code == 0


@pytest.mark.parametrize("chained", [True, False])
def test_scattered_bad_shards_are_accepted_however_late_they_are_tried_again(chained: bool, tmp_path: Path) -> None:
    if not chained:
        run(tmp_path, Numbers(200))
    squares = SomeBad(bad=frozenset(range(0, 200, 10)))
    assert run(tmp_path, Numbers(200), squares).exit_code == 1
    assert len(StageFolder(str(tmp_path), "squares").committed()) == 180
    assert run(tmp_path, Numbers(200), squares, accept_failed=True).exit_code == 0


def test_more_failures_than_a_stage_can_bear_are_not_accepted(tmp_path: Path) -> None:
    squares = SomeBad(bad=frozenset(range(0, 200, 5)))
    report = run(tmp_path, Numbers(200), squares, accept_failed=True)
    assert (report.exit_code, len(report.failed)) == (1, 40)


def test_a_worker_that_cannot_get_ready_stops_the_run_and_no_shard_is_accepted_for_it(tmp_path: Path) -> None:
    run(tmp_path, Numbers(6), SomeBad(bad=frozenset([5])))
    report = run(tmp_path, Numbers(6), SomeBad(opens=False), accept_failed=True)
    assert "Stopped: squares could not be opened: OSError: no GPU here" in str(report)
    assert run(tmp_path, Numbers(6), Squares()).exit_code == 0


def test_no_secret_of_a_cause_is_repeated(tmp_path: Path) -> None:
    class Telling(Squares):
        def process(self, task: Task, out: ShardWriter, state: int) -> Counts:
            if task.id == BAD:
                raise ValueError("no answer from https://bucket/x?X-Amz-Signature=hunter2 nor s3://KEY:hunter2@bucket")
            return super().process(task, out, state)

    assert "no answer from" in str(run(tmp_path, Numbers(6), Telling()))
    run(tmp_path, Numbers(6), Telling(), accept_failed=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    rejects = pq.read_table(next((tmp_path / "squares" / "rejects").glob("*.parquet")))
    assert "no answer from" in rejects["detail"][0].as_py()


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
        ["unshare", "-rm", "sh", "-ec", script],
        env=environment,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ).stdout
    assert f"Stopped: no room in {disk}/root" in said
    assert said.index("exit code 1") < said.index("exit code 0")
    run(tmp_path / "quiet", *toy_stages(200))
    assert everything_in(str(tmp_path / "root")) == everything_in(str(tmp_path / "quiet"))
    assert left_in(tmp_path / "root") == left_in(tmp_path / "quiet")


JUMPING_CLOCK = """
import datetime, random, sys, time
import pandas  # pyarrow imports it where it is there, and its C code wants the real datetime
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
