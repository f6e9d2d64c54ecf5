"""Every row is accounted for: by stage, by reason and by source, on a finished root and on one that is being made."""

from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from pipeline.commits import STATS
from pipeline.errors import InputError
from pipeline.run import Base
from stages.filter import FilterRecipe
from stages.report import funnel, tables
from stages.report.coverage import not_covered
from stages.report.root import RunRoot
from tests.stages.filter.making import Made, crawl, filtered, in_shards
from tests.stages.report.roots import make_pairs, run_all, take_back


def test_what_a_stage_lets_through_is_what_the_next_one_gets(root: str, pairs: list[Made]) -> None:
    steps = funnel(root)
    assert steps["stage"].to_list() == [
        "download",
        "embed",
        "filter_judge",
        "filter_duplicates",
        "corpus",
        "index",
    ]
    assert steps["rows_in"].to_list() == [len(pairs), *steps["rows_out"][:-1]]
    assert (steps["rows_in"] - steps["lost"] == steps["rows_out"]).all()
    assert steps["share_of_all"][-1] == steps["rows_out"][-1] / len(pairs)


def test_reasons_add_up_to_the_losses_and_sources_to_the_reasons(root: str) -> None:
    steps, losses = funnel(root), tables(root)["losses"]
    for stage, lost in steps.select("stage", "lost").iter_rows():
        assert losses.filter(pl.col("stage") == stage)["rows"].sum() == lost
    assert losses.select(pl.sum_horizontal("of cc3m", "of a-b_2")).to_series().to_list() == losses["rows"].to_list()


def test_losses_are_those_that_a_reader_counts_in_the_reject_files(root: str) -> None:
    rows = [
        (path.parent.parent.name, reason, pair_id.rsplit("-", 1)[0])
        for path in Path(root).glob("*/rejects/*.parquet")
        for pair_id, reason, _ in pl.read_parquet(path).iter_rows()
    ]
    counted = Counter(rows)
    told = {
        (row["stage"], row["reason"], source): row[f"of {source}"]
        for row in tables(root)["losses"].iter_rows(named=True)
        for source in ("cc3m", "a-b_2")
        if row[f"of {source}"]
    }
    assert told == counted
    assert len({reason for _, reason, _ in counted}) >= 6


def test_sources_are_followed_through_the_stages(root: str, pairs: list[Made]) -> None:
    found = tables(root)["sources"]
    assert found["source"].to_list() == ["a-b_2", "cc3m"]
    for source, fetched, scored, kept, corpus in found.iter_rows():
        own = [pair for pair in pairs if pair.source == source]
        assert fetched == sum(pair.downloaded for pair in own)
        assert scored == sum(pair.reason is None for pair in own) >= kept >= corpus
    assert found["in the corpus"].sum() == funnel(root)["rows_out"][-1]


def test_a_running_root_is_counted_by_what_is_committed(tmp_path: Path) -> None:
    pairs = make_pairs()
    root = crawl(tmp_path, in_shards(pairs, 20))
    take_back(root, "embed", "000001")
    steps = funnel(root)
    assert steps["stage"].to_list() == ["download", "embed"]
    assert steps.select("shards", "done").row(1) == (3, 2)
    read = [pair for pair in pairs[:20] + pairs[40:] if pair.downloaded]
    assert steps["rows_in"][1] == len(read)
    assert steps["rows_out"][1] == sum(pair.reason is None for pair in read)
    told = " ".join(not_covered(RunRoot(root)))
    assert "embed is not whole: 2 of 3 shards" in told
    assert "nothing is committed yet: ingest_count, ingest_rows, filter_judge, corpus" in told


def test_commit_records_and_the_table_made_of_them_say_the_same(tmp_path: Path, root: str) -> None:
    columns = ["rows_in", "rows_out", "bytes", "low_clip_score", "small_image", "caption_no_letters"]
    made = pl.read_parquet(f"{root}/filter_judge/{STATS}", columns=columns)
    running = run_all(tmp_path, make_pairs(), FilterRecipe(duplicates="drop"))
    take_back(running, "filter_judge", "none")
    assert RunRoot(running).stages["filter_judge"].stats.select(columns).equals(made)


def test_a_stage_of_the_base_is_read_where_it_lies(tmp_path: Path, root: str, pairs: list[Made]) -> None:
    recipe = FilterRecipe.model_validate({"defaults": {"min_clip_score": 0.4}})
    other = run_all(tmp_path, pairs, recipe, base=Base(root=root))
    assert not Path(other, "download", "data").exists()
    ours, theirs = funnel(other), funnel(root)
    assert ours.head(2).equals(theirs.head(2))
    assert ours["rows_out"][2] < theirs["rows_out"][2]


def test_a_corpus_of_several_runs_says_whose_crawl_it_leaves_out(tmp_path: Path) -> None:
    halves = [[pair for pair in make_pairs() if pair.source == source] for source in ("cc3m", "a-b_2")]
    roots = tuple(crawl(tmp_path / str(n), in_shards(half, 20)) for n, half in enumerate(halves))
    both = filtered(tmp_path / "both", FilterRecipe(inputs=roots))
    Path(both, "recipe.yaml").write_text(f"filter: {{inputs: [{', '.join(roots)}]}}")
    scored = sum(funnel(root)["rows_out"][-1] for root in roots)
    assert funnel(both).select("stage", "rows_in").row(0) == ("filter_judge", scored)
    assert tables(both)["quantiles"]["pairs"][0] == scored
    assert all(root in next(iter(not_covered(RunRoot(both)))) for root in roots)


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no committed shard"):
        tables(str(tmp_path))
