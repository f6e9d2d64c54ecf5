"""The main job, whole: sums that add up, roots that stand on roots, the same bytes on both engines."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs import build_index, search, stats
from pipeline.commits import Committed, StageFolder, Whole
from pipeline.recipe import load_recipe
from pipeline.run import Run
from pipeline.stage import Stage
from pipeline.stage_run import StageRun
from pipeline.writer import Task
from tests.jobs.main_job import AFTER, CRAWL, RECIPE, small
from tests.ports import free_ports
from tests.toys import data_of

PAIRS = ("ingest_rows", "download", "embed", "filter_judge", "corpus", "index_add", "index")
TABLES = {  # of the stages of single pairs: where their shards tell pair ids
    "ingest_rows": ("urls", "pair_id"),
    "download": ("pairs", "key"),
    "embed": ("pairs", "pair_id"),
    "filter_judge": ("judged", "pair_id"),
}


@dataclass(frozen=True)
class Made:
    """port: of the demo's server, which the lists bear."""

    root: Path
    port: int
    said: str

    def arguments(self, root: Path, *overrides: str) -> list[str]:
        lists = self.root.parent / "lists"
        return [RECIPE, *small(root, lists, self.port), *overrides]

    def stages(self, root: Path) -> list[Stage[Any]]:
        recipe, *overrides = self.arguments(root)
        return load_recipe(build_index.BuildIndexRecipe, Path(recipe), overrides).stages()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder, port = tmp_path_factory.mktemp("main job"), free_ports(1)[0]
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *words, **_: said.append(" ".join(map(str, words))))
        assert build_index.main([RECIPE, *small(folder / "root", folder / "lists", port)]) == 0
    return Made(folder / "root", port, "\n".join(said))


def totals(root: Path, stage: str) -> tuple[int, int, int]:
    """Rows in, rows out, and rows in the reject tables."""
    whole = Whole.open(str(root), stage)
    tables = list((Path(whole.folder.root) / stage / "rejects").glob("*.parquet"))
    rejects = sum(pl.read_parquet(path).height for path in tables)
    return sum(s.rows_in for s in whole.shards.values()), whole.rows, rejects


def test_rows_add_up_within_and_between_stages(made: Made) -> None:
    before = 400
    for stage in PAIRS:
        rows_in, rows_out, rejects = totals(made.root, stage)
        assert rows_in == rows_out + rejects
        assert rows_in == before
        before = rows_out
    assert before > 250


def test_no_pair_is_both_kept_and_rejected_or_neither(made: Made) -> None:
    kept = pl.read_parquet(made.root / "corpus" / "data" / "metadata" / "*.parquet")["pair_id"]
    rejected = pl.read_parquet(made.root / "*" / "rejects" / "*.parquet")["pair_id"]
    truth = pl.read_parquet(made.root.parent / "lists" / "truth.parquet")
    everyone = [f"{source}-{row:010d}" for source, row in truth.select("source", "row").iter_rows()]
    assert sorted([*kept, *rejected]) == sorted(everyone)


def entered(shard: Committed) -> list[str]:
    """The pairs of a committed shard, kept and rejected; a download's table holds both."""
    table, column = TABLES[shard.folder.stage]
    found = set(shard.table(table)[column].to_pylist())
    if shard.record.rejects_file:
        rejects = Path(shard.folder.root) / shard.folder.stage / shard.record.rejects_file.path
        found |= set(pl.read_parquet(rejects)["pair_id"])
    return sorted(found)


@pytest.mark.parametrize("name", TABLES)
def test_the_pairs_that_would_be_rejected_for_a_failed_shard_are_those_that_entered_it(made: Made, name: str) -> None:
    runs: dict[str, StageRun] = {}
    for stage in made.stages(made.root):
        upstream = {source.key: runs[source.stage] for source in stage.inputs}
        runs[stage.name] = StageRun(stage, StageFolder(str(made.root), stage.name), upstream)
        runs[stage.name].prepare(None, ())
    run = runs[name]
    assert run.job is not None
    assert len(run.shards) > 1
    for shard in run.shards.values():
        pair_ids = run.stage.pair_ids(Task(run.job, shard))
        assert pair_ids is not None
        committed = Committed(run.folder, run.folder.record(shard.id))
        assert len(pair_ids) == committed.record.rows_in > 0
        assert sorted(pair_ids) == entered(committed)


def test_it_ends_with_the_truth_examples_and_where_to_look(made: Made) -> None:
    met = re.search(r"(\d+) of (\d+) bad rows left for exactly the reason", made.said)
    assert met is not None
    assert met[1] == met[2]
    assert made.said.count("search: ") == 5
    assert f"{made.root}/report.html" in made.said
    assert "<html" in (made.root / "report.html").read_text()


def test_a_second_run_makes_nothing_again(made: Made) -> None:
    def commits() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in made.root.glob("*/commits/*.json")}

    before = commits()
    assert build_index.main(made.arguments(made.root)) == 0
    assert commits() == before


def test_both_engines_give_the_same_bytes(made: Made, tmp_path: Path, ray_cluster: None) -> None:
    from pipeline.ray_executor import RayExecutor

    for stage in CRAWL:
        shutil.copytree(made.root / stage, tmp_path / stage)
    assert Run(str(tmp_path), made.stages(tmp_path)).execute(RayExecutor()).exit_code == 0
    for stage in AFTER:
        assert data_of(str(tmp_path), stage) == data_of(str(made.root), stage), stage


def test_another_threshold_on_a_base_leaves_the_crawl_alone(made: Made, tmp_path: Path) -> None:
    scores = pl.read_parquet(made.root / "embed" / "data" / "*.parquet")["clip_score"]
    threshold = float(scores.quantile(0.4) or 0)
    override = f"filter={{shard_rows: 90, defaults: {{min_clip_score: {threshold}}}}}"
    assert build_index.main(made.arguments(tmp_path, f"base.root={made.root}", override)) == 0
    for stage in (*CRAWL, "embed"):
        assert sorted(path.name for path in (tmp_path / stage).rglob("*") if path.is_file()) == ["taken.json"]
    assert 0 < totals(tmp_path, "corpus")[1] < totals(made.root, "corpus")[1]


def test_dropped_duplicates_are_those_with_the_same_stored_bytes(made: Made, tmp_path: Path) -> None:
    override = "filter={shard_rows: 90, defaults: {min_clip_score: null}, duplicates: drop}"
    assert build_index.main(made.arguments(tmp_path, f"base.root={made.root}", override)) == 0
    judged = pl.read_parquet(made.root / "filter_judge" / "data" / "*.parquet").sort("pair_id")
    dropped = pl.read_parquet(tmp_path / "filter_duplicates" / "rejects" / "*.parquet")
    copies = judged.filter(~pl.col("stored_sha256").is_first_distinct())["pair_id"]
    assert len(copies) > 5
    assert set(copies) <= set(dropped["pair_id"])


def test_a_changed_setting_is_refused_by_name(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_index.main(made.arguments(made.root, "download.size_px=128")) == 2
    assert "download was made with other settings: size_px is 256 there and 128 here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["filter.min_clipscore=1"], "min_clipscore is not a setting"),
        (["filter.sources={cc3: {}}"], "filter.sources.cc3 is no source"),
        (["encoder=null"], "an encoder section goes with embed.model"),
        (["ingest=null"], "give either ingest.sources, or finished runs"),
        (["filter={inputs: [runs/a]}"], "or both, and then 'this' among filter.inputs"),
        (["ingest=null", "filter={inputs: [runs/a, this]}"], "this run fetches nothing: give ingest.sources"),
        (["ingest={sources: [{preset: rejects, root: /nowhere}]}"], "/nowhere/ingest_rows is not whole"),
        (["ingest.sources=[{name: a, preset: cc3m, files: [nowhere.tsv]}]"], "nowhere.tsv"),
        (["ingest.sources=[{name: a, preset: cc4m, files: [x]}]"], "the presets are cc3m"),
        (["embed.model=ViT-B-31"], "ViT-B-32"),
        (["base.root=/nowhere"], "/nowhere holds no run"),
    ],
)
def test_a_bad_recipe_stops_before_anything_starts(
    made: Made, overrides: Sequence[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    assert build_index.main(made.arguments(root, *overrides)) == 2
    assert message in capsys.readouterr().err
    assert not list(root.glob("*/"))


def test_search_and_stats_read_what_was_made(made: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert search.main([str(made.root), "--text", "a red star", "--k", "3", "--save", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*.jpg"))) == 3
    picture = next(iter(tmp_path.glob("001-*.jpg")))
    assert search.main([str(made.root), "--image", str(picture), "--k", "1"]) == 0
    assert picture.name[4:-4] in capsys.readouterr().out
    assert stats.main([str(made.root), "--json"]) == 0
    funnel = json.loads(capsys.readouterr().out)["funnel"]
    assert [step["rows_in"] - step["lost"] for step in funnel] == [step["rows_out"] for step in funnel]
