"""What `jobs/stats.py` prints."""

import json
from pathlib import Path

import pytest

from jobs.stats import main
from stages.filter import FilterRecipe
from tests.stages.filter.making import filtered, in_shards
from tests.stages.report.roots import make_pairs


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
    assert "[--json] root" in capsys.readouterr().err


def test_a_folder_without_a_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
