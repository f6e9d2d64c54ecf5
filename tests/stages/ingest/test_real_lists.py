"""The lists as their publishers made them. Skipped where the data is missing (REVILM_DATA)."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stages.ingest import check_sources
from tests.stages.ingest.ingesting import Ingested, ingest, recipe_of


def ingest_checked(root: Path, preset: str, files: str, shard_size: int = 10_000, **settings: str) -> Ingested:
    source = {"name": preset, "preset": preset, "files": [files], **settings}
    assert check_sources(recipe_of(source)) == []
    return ingest(root, source, shard_size=shard_size)


def test_the_cc3m_validation_list(real_data: Path, tmp_path: Path) -> None:
    made = ingest_checked(tmp_path, "cc3m", f"{real_data}/cc3m/Validation*.tsv")
    path = next((real_data / "cc3m").glob("Validation*.tsv"))
    with path.open(newline="", encoding="utf-8") as file:
        listed = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [[row["caption"], row["url"]] for row in made.urls] == listed
    assert len(made.urls) == 15_833
    assert [record.rows_in for record in made.records] == [10_000, 5_833]


def test_the_laion_lists(real_data: Path, tmp_path: Path) -> None:
    made = ingest_checked(tmp_path, "laion", f"{real_data}/laion/test_*.parquet", shard_size=3_000)
    listed = [row for name in ("test_1000", "test_10000") for row in _parquet(real_data / f"laion/{name}.parquet")]
    kept = [pair for n, pair in enumerate(listed) if f"laion-{n:010d}" not in made.reasons]
    assert [(row["url"], row["caption"]) for row in made.urls] == kept
    assert set(made.reasons.values()) == {"bad_url"}
    assert len(made.reasons) + len(made.urls) == 11_000


def _parquet(path: Path) -> list[tuple[str, str]]:
    table = pq.read_table(path, columns=["URL", "TEXT"])
    return [(row["URL"].strip(), row["TEXT"]) for row in table.to_pylist()]


def test_coco_captions(real_data: Path, tmp_path: Path) -> None:
    made = ingest_checked(tmp_path, "coco", f"{real_data}/coco_mini/captions_*.json", folder="/images")
    assert len(made.urls) == 795
    assert made.rejects == []
    assert len({row["image_id"] for row in made.urls}) == 159


@pytest.mark.parametrize(("split", "images"), [("train", 5_997), ("val", 1_000), ("test", 1_000)])
def test_flickr8k_splits(split: str, images: int, real_data: Path, tmp_path: Path) -> None:
    files = f"{real_data}/flickr8k/dataset_flickr8k.json.gz"
    made = ingest_checked(tmp_path, "karpathy", files, folder="/images", split=split)
    assert len(made.urls) == 5 * images
    assert len({row["image_id"] for row in made.urls}) == images


def test_tars_with_five_captions_a_picture(real_data: Path, tmp_path: Path) -> None:
    made = ingest_checked(tmp_path, "webdataset", f"{real_data}/vi_captions/*.tar", shard_size=1_001)
    assert len(made.urls) == 6_000
    assert len({row["image_id"] for row in made.urls}) == 1_200
    for row in made.urls[::500]:
        with Path(row["local_path"]).open("rb") as tar:
            tar.seek(row["local_offset"])
            picture = tar.read(row["local_bytes"])
        assert picture[:3] == b"\xff\xd8\xff"
        assert picture[-2:] == b"\xff\xd9"


def test_a_shard_of_cc12m_as_a_downloader_wrote_it(real_data: Path, tmp_path: Path) -> None:
    made = ingest_checked(tmp_path, "webdataset", f"{real_data}/cc12m/*.tar", shard_size=5)
    assert len(made.urls) == 32
    assert made.urls[0]["caption"] == "Red Square is a city square in Moscow, Russia."
    assert {row["image_id"] for row in made.urls} == {None}


def test_the_columns_of_coyo_take_every_prefilter(real_data: Path) -> None:
    bounds = {"min_clip_score": 0.3, "min_width": 200, "min_height": 200}
    bounds |= {"max_nsfw": 0.5, "max_watermark": 0.5, "min_aesthetic": 4.5}
    source = {"name": "coyo", "preset": "coyo", "files": [f"{real_data}/coyo/*.parquet"], "prefilter": bounds}
    assert check_sources(recipe_of(source)) == []


def test_tars_without_captions_are_told(real_data: Path) -> None:
    source = {"name": "w", "preset": "webdataset", "files": [f"{real_data}/laion/image*.tar"]}
    assert len(check_sources(recipe_of(source))) == 4


def test_an_index_in_json_lines_gives_the_pairs_of_the_list(real_data: Path, tmp_path: Path) -> None:
    made = ingest_checked(tmp_path / "root", "table", f"{real_data}/cc3m/val_index.jsonl.gz")
    listed = ingest_checked(tmp_path / "other", "cc3m", f"{real_data}/cc3m/Validation*.tsv")
    assert [(row["url"], row["caption"]) for row in made.urls] == [(r["url"], r["caption"]) for r in listed.urls]
    assert made.rejects == []
