"""The whole way from lists to the table, in a drawn world and on real pictures, at a budget too small to learn much.

Quality is not looked at: an encoder of a few steps, on drawn scenes at that, and models of a few updates."""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.commits import CommitRecord, StageFolder
from trials.results.recipe import ResultsRecipe
from trials.results.series import results

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.filterwarnings("ignore:constrained_layout")]

TINY: dict[str, Any] = {
    "engine": "local",
    "seeds": [1],
    "encoder": {"steps": 10, "batch": 16, "threads": 1},
    "tower": {"vit": {"layers": 1}, "steps": 5, "batch": 16, "threads": 1},
    "embed": {"model": "encoder", "cpus": 1},
    "index": {"min_recall": None, "train_cpus": 1},
    "interleave": {"lo": 0.0, "hi": 1.9, "max_starved": 1.0},
    "training": {
        "model": {"preset": "nano", "vocab_size": 512},
        "held_out": {"share": 0.1, "samples": 8, "captioned": 8},
        "language": {"updates": 10, "rows": "packed"},
        "retrofit": {"updates": 4},
        "pretrain": {"updates": 4, "pairs": 8, "fives": 2, "micro_batch": 8},
    },
    "asked": {"beams": 1, "new_tokens": [10]},
}
CELLS = 2 * (1 + 2 * 3)  # shots × (none, and two arms with three databases)


def made(root: Path, lists: Mapping[str, Any]) -> str:
    return results(ResultsRecipe.model_validate({**TINY, "root": str(root), **lists}))


def records(root: Path) -> dict[str, CommitRecord]:
    folder = StageFolder(str(root / "seed-1"), "evaluation_answers")
    return {shard: folder.record(shard) for shard in folder.committed()}


def test_a_drawn_world_gives_a_whole_table_and_goes_on_where_it_stood(tmp_path: Path) -> None:
    world = {"world": {"own": 200, "other": 150, "test": 6, "side_px": 64}}
    report = made(tmp_path, world)
    figures = pl.read_parquet(tmp_path / "results.parquet")
    scored = figures.filter((pl.col("metric") == "cider_d") & (pl.col("domain") == ""))
    assert len(scored) == CELLS
    assert set(figures["domain"]) == {"", "in", "out"}
    assert "No test picture stands in own or in a database" in report
    first = records(tmp_path)
    assert len(first) == CELLS, "a cell is a shard"

    lost = min(first)
    (tmp_path / "seed-1" / "evaluation_answers" / "manifest.json").unlink()
    (tmp_path / "seed-1" / "evaluation_answers" / "commits" / f"{lost}.json").unlink()
    assert made(tmp_path, world) == report
    again = records(tmp_path)
    assert again[lost].attempt != first[lost].attempt
    assert again[lost].identity == first[lost].identity
    assert {shard: again[shard] for shard in again if shard != lost} == {s: first[s] for s in first if s != lost}

    made(tmp_path, world | {"seeds": [1, 2]})
    assert records(tmp_path) == again, "another seed makes nothing of this one anew"
    both = pl.read_parquet(tmp_path / "results.parquet")
    assert both.filter(pl.col("half_width").is_not_null())["seeds"].to_list()[0] == [1, 2]


def test_real_pictures_go_the_whole_way(real_data: Path, tmp_path: Path) -> None:
    """COCO's training and validation pictures, and Flickr8k's as another source. No claim of quality."""
    with tarfile.open(real_data / "coco_mini" / "coco_mini-00000.tar") as tar:
        tar.extractall(tmp_path / "pictures", filter="data")

    def coco(split: str) -> dict[str, Any]:
        captions = real_data / "coco_mini" / f"captions_{split}2017.json"
        source = {"preset": "coco", "files": [str(captions)], "folder": str(tmp_path / "pictures")}
        return {"sources": [{"name": f"coco-{split}", **source}]}

    flickr = str(real_data / "flickr8k" / "flickr8k-images-00000.tar")
    other = {"sources": [{"name": "flickr8k", "preset": "webdataset", "files": [flickr]}]}
    report = made(tmp_path / "run", {"own": coco("train"), "other": other, "test": coco("val"), "note": "No claim."})
    assert "test: 79 pictures with 395 references" in report
    assert "own 400 pairs" in report
    assert "No claim." in report
    figures = pl.read_parquet(tmp_path / "run" / "results.parquet")
    assert len(figures.filter(pl.col("metric") == "cider_d")) == CELLS
