"""How many rows lists have, told from their heads."""

import gzip
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import RecipeError
from stages.ingest import IngestRecipe
from stages.plan import Basis, plan_of
from stages.plan.lists import SourceRows, rows_of_sources
from tests.stages.ingest.ingesting import tsv, write_parquet, write_text
from tests.stages.plan.planning import job_over

PAIRS = [(f"https://{'big' if row % 4 == 0 else f'h{row}'}.example/{row}.jpg", f"caption {row}") for row in range(200)]


def rows_of(folder: Path, source: dict[str, Any], shard_size: int = 10_000, **plan: Any) -> SourceRows:
    ingest = IngestRecipe.model_validate({"sources": [{"name": "x"} | source], "shard_size": shard_size})
    return rows_of_sources(job_over(folder / "root", ingest, **plan))["x"]


def test_parquet_is_counted_by_its_footers(tmp_path: Path) -> None:
    for n in range(3):
        columns = {"url": [url for url, _ in PAIRS], "text": [text for _, text in PAIRS]}
        write_parquet(tmp_path / f"{n}.parquet", columns, row_group_size=50)
    found = rows_of(tmp_path, {"preset": "coyo", "files": [f"{tmp_path}/*.parquet"]}, shard_size=150)
    assert (found.rows.value, found.shards.value, found.lists.value) == (600, 6, 3)
    assert found.rows.basis == found.lists.basis == Basis.COUNTED


def test_an_empty_file_among_others_tells_nothing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", {"url": pa.array([], pa.string()), "text": pa.array([], pa.string())})
    write_parquet(tmp_path / "1.parquet", {"url": [url for url, _ in PAIRS], "text": [text for _, text in PAIRS]})
    found = rows_of(tmp_path, {"preset": "coyo", "files": [f"{tmp_path}/*.parquet"]})
    assert (found.rows.value, found.largest_host and found.largest_host.value) == (200, 0.25)


def test_the_prefilters_share_is_seen_in_the_columns(tmp_path: Path) -> None:
    numbers = {"clip_similarity_vitl14": [0.1, 0.3, 0.3, None, 0.2], "width": [100, 10, 64, 100, 100]}
    path = write_parquet(tmp_path / "l.parquet", {"url": ["https://a.example/1"] * 5, "text": ["c"] * 5, **numbers})
    source = {"preset": "coyo", "files": [path], "prefilter": {"min_clip_score": 0.2, "min_width": 64}}
    found = rows_of(tmp_path, source).passed
    assert found is not None
    assert (found.value, found.basis) == (0.6, Basis.MEASURED)  # a bound is kept, and so is a row without a value


@pytest.mark.parametrize("name", ["l.tsv", "l.tsv.gz"])
def test_a_text_longer_than_its_head_is_estimated(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.plan.lists.HEAD_BYTES", 20_000)
    path, random = tmp_path / name, Random(1)  # rows that repeat would be packed better than the head
    text = tsv([(f"https://h{random.random()}.example/1.jpg", f"caption {random.random()}") for _ in range(4000)])
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    found = rows_of(tmp_path, {"preset": "cc3m", "files": [str(path)]}, shard_size=100)
    assert found.rows.basis == Basis.MEASURED
    assert found.rows.value == pytest.approx(4000, rel=0.1)


def test_the_largest_host_is_seen_and_bounds_the_crawl(tmp_path: Path) -> None:
    path = write_text(tmp_path / "l.tsv", tsv(PAIRS))
    source = {"name": "x", "preset": "cc3m", "files": [path]}
    plan = plan_of(job_over(tmp_path / "root", IngestRecipe.model_validate({"sources": [source]}), fetch_s=2, cpus=100))
    assert plan.bounds["largest host"].value == pytest.approx(50 * 2 / 8 / 3600)  # 50 urls, 2 s each, 8 at once
    assert plan.hours.value >= plan.bounds["largest host"].value


def test_the_real_list_is_told_to_the_row(real_data: Path, tmp_path: Path) -> None:
    found = rows_of(tmp_path, {"preset": "cc3m", "files": [str(next((real_data / "cc3m").glob("Validation*.tsv")))]})
    assert round(found.rows.value) == 15_833
    assert found.largest_host is not None
    assert found.largest_host.value == pytest.approx(0.14, abs=0.005)


def test_rows_that_are_stated_stand_for_a_list_elsewhere(tmp_path: Path) -> None:
    source = {"preset": "coyo", "files": [f"{tmp_path}/none/*.parquet"]}
    found = rows_of(tmp_path, source, rows={"x": 25_001})
    assert (found.rows.value, found.shards.value, found.rows.basis) == (25_001, 3, Basis.STATED)
    with pytest.raises(RecipeError, match=r"State them: plan\.rows\.x=N"):
        rows_of(tmp_path, source)


def test_a_list_that_is_here_wins_over_what_is_stated(tmp_path: Path) -> None:
    path = write_text(tmp_path / "l.tsv", tsv(PAIRS))
    assert rows_of(tmp_path, {"preset": "cc3m", "files": [path]}, rows={"x": 7}).rows.value == 200


def test_a_list_that_is_wrong_is_refused(tmp_path: Path) -> None:
    path = write_text(tmp_path / "l.tsv", tsv(PAIRS, caption_first=False))
    with pytest.raises(RecipeError, match="cc12m"):
        rows_of(tmp_path, {"preset": "cc3m", "files": [path]})


@pytest.mark.parametrize("section", ["rows", "survival", "largest_host"])
def test_a_source_that_is_none_is_refused(tmp_path: Path, section: str) -> None:
    plan: dict[str, Any] = {section: {"y": {} if section == "survival" else 1}}
    source = {"name": "x", "preset": "cc3m", "files": ["none"]}
    with pytest.raises(RecipeError, match=rf"plan\.{section}\.y is no source; ingest\.sources has x"):
        plan_of(job_over(tmp_path, IngestRecipe.model_validate({"sources": [source]}), **plan))
