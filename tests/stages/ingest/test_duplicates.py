"""Of rows with one url and caption the first one stays, whatever the shards; memory does not grow with the lists."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from pipeline.commits import Whole
from pipeline.reasons import Reason
from pipeline.stage import Stage
from stages.ingest import IngestRecipe, ingest_stages
from stages.ingest.duplicates import Duplicates
from stages.ingest.keys import Keys
from tests.stages.ingest.ingesting import (
    ingest,
    ingest_by,
    recipe_of,
    write_json,
    write_parquet,
    write_tar,
    write_text,
)

BAD_URL = "ftp://a.b/"


def random_rows(random: Random, rows: int) -> list[tuple[str, str]]:
    """url, caption: few of each, so that most pairs stand several times; some that fail a check."""
    urls = [f"http://a.b/{n}" for n in range(6)] + [" http://a.b/0 ", BAD_URL]
    return [(random.choice(urls), random.choice(["a dog", "a cat", "a  dog", "", "ein Hünd"])) for _ in range(rows)]


def written(folder: Path, random: Random) -> tuple[list[dict[str, Any]], list[tuple[str, str, str]]]:
    """Three sources of one to three files, and all their rows: source, url, caption."""
    sources, rows = [], []
    for name in ("b", "a", "c"):
        for number in range(random.randrange(1, 4)):
            listed = random_rows(random, random.randrange(1, 60))
            rows += [(name, url, caption) for url, caption in listed]
            if name == "c":
                table = {"URL": [url for url, _ in listed], "TEXT": [caption for _, caption in listed]}
                write_parquet(folder / f"{name}{number}.parquet", table, random.randrange(1, 9))
            else:
                write_text(folder / f"{name}{number}.tsv", "".join(f"{caption}\t{url}\n" for url, caption in listed))
        preset = "laion" if name == "c" else "cc3m"
        sources.append({"name": name, "preset": preset, "files": [f"{folder}/{name}*"]})
    return sources, rows


def first_of_each(rows: Sequence[tuple[str, str, str]]) -> tuple[list[str], list[str]]:
    """pair ids to keep, and to drop."""
    seen: set[tuple[str, str]] = set()
    kept: list[str] = []
    dropped: list[str] = []
    numbers = dict.fromkeys("abc", 0)
    for source, url, caption in rows:
        pair_id = f"{source}-{numbers[source]:010d}"
        numbers[source] += 1
        if caption and url != BAD_URL:
            (dropped if (url.strip(), caption) in seen else kept).append(pair_id)
            seen.add((url.strip(), caption))
    return kept, dropped


def sized(stages: Sequence[Stage[Any]], *, keys: int, duplicates: int, span: int) -> list[Stage[Any]]:
    """The stages with so many rows a shard and a span."""
    return [
        replace(stage, shard_rows=keys)
        if isinstance(stage, Keys)
        else replace(stage, shard_rows=duplicates, span_rows=span)
        if isinstance(stage, Duplicates)
        else stage
        for stage in stages
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_first_row_stays_whatever_the_shards(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    sources, rows = written(tmp_path, random)
    recipe = recipe_of(*sources, shard_size=random.randrange(1, 30), duplicates="drop")
    sizes = {name: random.randrange(1, 90) for name in ("keys", "duplicates", "span")}
    made = ingest_by(tmp_path / "root", sized(ingest_stages(recipe), **sizes))
    kept, dropped = first_of_each(rows)
    assert len(dropped) > 20
    assert [row["pair_id"] for row in made.urls] == kept
    found = [pair_id for pair_id, reason in made.reasons.items() if reason == Reason.DUPLICATE_ROW]
    assert found == dropped
    assert len(made.urls) + len(made.rejects) == len(rows)


def test_they_are_dropped_unless_the_recipe_keeps_them(tmp_path: Path) -> None:
    source = {"name": "s", "preset": "cc3m", "files": [write_text(tmp_path / "a.tsv", "a\thttp://a.b/\n" * 3)]}
    assert IngestRecipe.model_validate({"sources": [source]}).duplicates == "drop"
    kept = ingest(tmp_path / "kept", source, duplicates="keep")
    assert len(kept.urls) == 3
    dropped = ingest(tmp_path / "dropped", source, duplicates="drop")
    assert dropped.rejects == [
        (f"s-000000000{n}", "duplicate_row", "same url and caption as an earlier row") for n in (1, 2)
    ]
    assert not (tmp_path / "kept" / "ingest_keys").exists()
    assert "duplicates" not in json.dumps(ingest_stages(recipe_of(source))[-1].settings())


def test_a_row_that_is_rejected_hides_no_good_one(tmp_path: Path) -> None:
    """The first one is too small for its own source."""
    table = {"URL": ["http://a.b/"], "TEXT": ["a"], "WIDTH": [10]}
    sources = [
        {"name": name, "preset": "laion", "files": [write_parquet(tmp_path / f"{name}.parquet", table)]}
        for name in ("small", "good", "late")
    ]
    made = ingest(tmp_path / "root", sources[0] | {"prefilter": {"min_width": 64}}, *sources[1:], duplicates="drop")
    assert [row["pair_id"] for row in made.urls] == ["good-0000000000"]
    assert made.reasons == {"small-0000000000": "prefilter_size", "late-0000000000": "duplicate_row"}


def test_local_pictures_are_the_same_where_they_lie_at_one_place(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    captions = [{"image_id": image, "caption": caption} for image, caption in [(1, "x"), (1, "x"), (2, "x"), (1, "y")]]
    coco = {"preset": "coco", "files": [write_json(tmp_path / "c.json", {"images": images, "annotations": captions})]}
    tars = {"preset": "webdataset", "files": [write_tar(tmp_path / "w.tar", [("0.jpg", b"p"), ("0.txt", b"x")])]}
    made = ingest(
        tmp_path / "root",
        coco | {"name": "here", "folder": "/one"},
        coco | {"name": "there", "folder": "/two"},
        tars | {"name": "tar"},
        tars | {"name": "again"},
        duplicates="drop",
    )
    places = ["here-0000000001", "there-0000000001", "again-0000000000"]
    assert made.reasons == dict.fromkeys(places, "duplicate_row")


def test_the_same_lists_give_the_same_bytes_and_a_list_without_rows_none(tmp_path: Path) -> None:
    sources, _ = written(tmp_path, Random(9))
    made = [ingest(tmp_path / name, *sources, duplicates="drop").identity for name in ("one", "two")]
    assert made[0] == made[1]
    write_parquet(tmp_path / "none.parquet", {"URL": [], "TEXT": []})
    empty = ingest(tmp_path / "none", {**sources[2], "files": [f"{tmp_path}/none.parquet"]}, duplicates="drop")
    assert (empty.urls, empty.rejects) == ([], [])


def test_shards_of_duplicates_are_equal_parts_of_the_hashes_and_no_more_than_64(tmp_path: Path) -> None:
    text = "".join(f"{n}\thttp://a.b/{n % 3000}\n" for n in range(6000))
    source = {"name": "s", "preset": "cc3m", "files": [write_text(tmp_path / "a.tsv", text + text)]}
    stages = ingest_stages(recipe_of(source, duplicates="drop"))
    ingest_by(tmp_path / "root", sized(stages, keys=1_000_000, duplicates=3, span=1000))
    whole = Whole.open(str(tmp_path / "root"), Duplicates.name)
    sizes = [summary.rows_in for summary in whole.shards.values()]
    assert len(sizes) == 64
    assert sum(sizes) == 12_000
    assert max(sizes) < 2 * min(sizes)
    positions = np.sort(np.concatenate([whole.read(shard).array("dropped") for shard in whole.shards]))
    np.testing.assert_array_equal(positions, np.arange(6000, 12_000))
