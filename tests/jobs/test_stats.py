"""What `jobs/stats.py` prints."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.stats import main
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import Counts
from pipeline.writer import ShardWriter, Task
from stages.filter import FilterRecipe
from tests.stages.filter.making import filtered, in_shards
from tests.stages.report.roots import make_pairs
from tests.toys import Numbers, Squares


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return filtered(tmp_path_factory.mktemp("run"), FilterRecipe(), in_shards(make_pairs(), 20))


def test_tables_name_stages_and_reasons(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([root]) == 0
    printed = capsys.readouterr().out
    for told in ("filter_judge", "low_clip_score", "clip_score", "rows per s"):
        assert told in printed


def test_json_adds_up(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([root, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(row["rows"] for row in found["losses"]) == sum(row["lost"] for row in found["funnel"])


@pytest.mark.parametrize("argv", [[], ["a", "b"], ["a", "--jsn"]])
def test_wrong_use_is_told(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "[--json] [--progress] root" in capsys.readouterr().err


def test_a_folder_without_a_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


@dataclass(frozen=True)
class Watched(Squares):
    """Looks at its own run as it works on its last shard but one."""

    root: str = ""
    seen: tuple[list[dict[str, list[dict[str, object]]]], ...] = ()

    def process(self, task: Task, out: ShardWriter, state: int) -> Counts:
        if task.id == "000004":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                assert main([self.root, "--progress", "--json"]) == 0
            self.seen[0].append(json.loads(printed.getvalue()))
        return super().process(task, out, state)


def test_a_run_at_work_shows_its_rate_its_losses_what_runs_and_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.progress.EVERY_S", 0)
    looks: list[dict[str, list[dict[str, object]]]] = []
    squares = Watched(root=str(tmp_path), seen=(looks,), bad_shard="000001", fault="raise")
    Run(str(tmp_path), [Numbers(6), squares]).execute(LocalExecutor())
    (numbers, squares_line), (failed,) = looks[0]["progress"], looks[0]["failed"]
    assert (numbers["done"], numbers["shards"], numbers["rows_in"]) == (5, 6, 25)
    assert (squares_line["done"], squares_line["running"], squares_line["failed"]) == (3, 1, 1)
    assert numbers["rows_per_s"] > 0  # type: ignore[operator]
    assert numbers["time_left"] is not None
    assert [row["reason"] for row in looks[0]["leading reasons"]] == ["malformed_row"]
    assert failed == {"stage": "squares", "shard": "000001", "cause": "ValueError: shard 000001 is not to my taste"}
    capsys.readouterr()
    assert main([str(tmp_path), "--progress"]) == 0
    printed = capsys.readouterr().out
    assert "No driver is at work" in printed
    assert "not to my taste" in printed
