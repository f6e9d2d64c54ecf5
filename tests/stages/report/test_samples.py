"""A root of five-pair samples shows its band, its figures and its pictures; any other root shows nothing of them."""

from pathlib import Path

import pytest
from PIL import Image

from jobs.stats import main
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from stages.interleave import InterleaveRecipe, interleave_stages
from stages.report import look_next, tables
from stages.report.coverage import not_covered
from stages.report.page import page
from stages.report.root import RunRoot
from tests.stages.neighbors.crowded import Crowded
from tests.stages.report.test_page import Reader, read

TABLES = ("band", "samples", "hubs", "pictures")


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> str:
    corpus, root = (str(tmp_path_factory.mktemp(name)) for name in ("corpus", "samples"))
    recipe = InterleaveRecipe(lo=0.7, hi=1.05, materialize=False)
    Run(corpus, [Crowded(rows=120)]).execute(LocalExecutor())
    said = f"corpora: [{corpus}]\n"
    run = Run(root, interleave_stages(recipe, [corpus]), recipe=said, recipe_name="interleave.yaml")
    assert run.execute(LocalExecutor()).exit_code == 0
    return root


def test_every_table_has_rows_and_the_pictures_are_there(sampled: str) -> None:
    found = tables(sampled)
    assert all(found[title].height for title in TABLES)
    for path in found["pictures"]["path"]:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
    starved = found["losses"].filter(stage="interleaved")["rows"].sum()
    told = dict(found["samples"].filter(found["samples"]["source"].is_null()).select("figure", "value").iter_rows())
    assert told["share of the queries that starved"] == starved / told["queries"]


def test_the_page_shows_the_pictures_and_whose_pairs_they_are(sampled: str) -> None:
    reader = read(sampled)
    text = " ".join(reader.text)
    assert [picture.format for picture in reader.pictures] == ["PNG"] * 3
    assert "share of the queries that starved" in text
    assert "Pairs of" in text
    assert "never became a picture" not in text


def test_stages_that_were_made_elsewhere_are_not_missing(sampled: str) -> None:
    told = [*not_covered(RunRoot(sampled))]
    assert "has a report of its own" in told[0]
    assert not any("nothing is committed yet" in line for line in told)


def test_a_job_can_say_where_to_look(sampled: str) -> None:
    head, *paths, command = look_next(sampled).splitlines()
    assert head == "Look next at"
    assert [Path(path.strip()).suffix for path in paths] == [".html", ".png", ".png", ".png"]
    assert all(Path(path.strip()).is_file() for path in paths)
    assert command.strip() == f"python jobs/stats.py {sampled}"


def test_a_root_without_samples_has_none_of_this(root: str) -> None:
    assert all(tables(root)[title].is_empty() for title in TABLES)
    assert "the band" not in " ".join(Reader(page(RunRoot(root))).text)


def test_stats_tells_the_paths_of_the_pictures(sampled: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([sampled, "--json"]) == 0
    assert "contact_sheet_000000" in capsys.readouterr().out
