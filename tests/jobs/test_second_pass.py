"""The second pass of the demo by its own recipe: one command fetches again, and makes corpus and index of both runs."""

import hashlib
from pathlib import Path

import polars as pl
import pytest

from jobs import build_index, stats
from pipeline.commits import Whole
from stages.filter import CorpusReader
from stages.report import tables
from tests.jobs.main_job import RECIPE, small
from tests.ports import free_ports

AGAIN = str(Path(RECIPE).with_name("second_pass.yaml"))


@pytest.mark.slow
def test_one_command_fetches_again_and_makes_one_corpus_and_index(tmp_path: Path) -> None:
    """What the first run thinks too large the second one takes."""
    first, second, port = tmp_path / "first", tmp_path / "second", free_ports(1)[0]
    settings = small(first, tmp_path / "lists", port)
    assert build_index.main([RECIPE, *settings, "download.max_bytes=7000"]) == 0
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    shared = [setting for setting in settings if not setting.startswith(("root=", "ingest=", "filter="))]
    given = f"ingest={{sources: [{{preset: rejects, root: {first}, reasons: [too_many_bytes, connection]}}]}}"
    corpus = f"filter={{inputs: [{first}, this], shard_rows: 90, defaults: {{min_clip_score: null}}}}"
    arguments = [AGAIN, *shared, f"root={second}", f"base.root={first}", given, corpus]
    assert build_index.main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    fetched, rows = Whole.open(str(second), "download").rows, Whole.open(str(second), "ingest_rows").rows
    assert 20 < fetched < rows
    pairs = pl.read_parquet(second / "corpus" / "data" / "metadata" / "*.parquet").sort("row_id")
    old = pl.read_parquet(first / "corpus" / "data" / "metadata" / "*.parquet")["pair_id"]
    assert pairs["pair_id"].n_unique() == len(pairs) > len(old)
    assert pairs.filter(pl.col("input") == 0)["pair_id"].to_list() == sorted(old)
    assert pairs.equals(pairs.sort("input", "pair_id"))
    assert Whole.open(str(second), "index").rows == len(pairs)
    reader = CorpusReader(str(second))
    for row in pairs.iter_rows(named=True):
        assert hashlib.sha256(reader.picture(row)).hexdigest() == row["stored_sha256"]
    counted = tables(str(second))
    judged = counted["funnel"].filter(pl.col("stage") == "filter_judge")
    assert judged["share"].to_list() == judged["share_of_all"].to_list()
    assert counted["sources"]["in the corpus"].sum() == len(pairs) <= counted["sources"]["fetched"].sum()
    assert stats.main([str(second)]) == 0
    assert str(first) in (second / "report.html").read_text()
    assert build_index.main(arguments) == 0
