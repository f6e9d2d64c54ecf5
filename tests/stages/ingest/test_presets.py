"""Every preset reads the form it names: the same pairs come out of each, numbered, under any shard size."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.recipe import Json
from stages.ingest import check_sources
from stages.ingest.presets import PRESETS
from tests.stages.ingest.ingesting import (
    Pairs,
    ingest,
    recipe_of,
    tsv,
    write_json,
    write_parquet,
    write_tar,
    write_text,
)

PAIRS = [(f"https://example.org/{n}.jpg?a=1&b=ü", f"caption {n}, “so\u2028to” say\x00 {'é' * n}") for n in range(7)]
PICTURE = b"not really a picture"


def columns(pairs: Pairs, url: str, caption: str) -> dict[str, list[str]]:
    return {url: [url for url, _ in pairs], caption: [caption for _, caption in pairs]}


def write_csv(path: Path, pairs: Pairs) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("n", "caption", "url"), *((n, pair[1], pair[0]) for n, pair in enumerate(pairs))])
    return write_text(path, text.getvalue())


def cc3m(folder: Path, pairs: Pairs) -> dict[str, Json]:
    return {"preset": "cc3m", "files": [write_text(folder / "a.tsv", tsv(pairs))]}


def cc12m(folder: Path, pairs: Pairs) -> dict[str, Json]:
    return {"preset": "cc12m", "files": [write_text(folder / "a.tsv.gz", tsv(pairs, caption_first=False))]}


def sbu(folder: Path, pairs: Pairs) -> dict[str, Json]:
    arrays = {"user_ids": ["x"] * len(pairs), **columns(pairs, "image_urls", "captions")}
    return {"preset": "sbu", "files": [write_json(folder / "sbu.json", arrays)]}


def sbu_text(folder: Path, pairs: Pairs) -> dict[str, Json]:
    urls = write_text(folder / "photo_urls.txt", "".join(f"{url}\n" for url, _ in pairs))
    captions = write_text(folder / "photo_captions.txt", "".join(f"{caption}\n" for _, caption in pairs))
    return {"preset": "sbu_text", "files": [urls, captions]}


def coyo(folder: Path, pairs: Pairs) -> dict[str, Json]:
    scores = [n / 10 for n in range(len(pairs))]
    table = columns(pairs, "url", "text") | {"nsfw_score_opennsfw2": scores, "watermark_score": scores}
    return {"preset": "coyo", "files": [write_parquet(folder / "a.parquet", table, row_group_size=3)]}


def laion(folder: Path, pairs: Pairs) -> dict[str, Json]:
    return {"preset": "laion", "files": [write_parquet(folder / "a.parquet", columns(pairs, "URL", "TEXT"), 2)]}


def table_csv(folder: Path, pairs: Pairs) -> dict[str, Json]:
    return {"preset": "table", "files": [write_csv(folder / "a.csv", pairs)]}


def table_tsv(folder: Path, pairs: Pairs) -> dict[str, Json]:
    return {"preset": "table", "files": [write_text(folder / "a.tsv", "caption\turl\n" + tsv(pairs))]}


def table_jsonl(folder: Path, pairs: Pairs) -> dict[str, Json]:
    text = "".join(json.dumps({"link": url, "text": caption}) + "\n" for url, caption in pairs)
    named = {"url": "link", "caption": "text"}
    return {"preset": "table", "files": [write_text(folder / "a.jsonl", text)], "columns": named}


def table_parquet(folder: Path, pairs: Pairs) -> dict[str, Json]:
    return {"preset": "table", "files": [write_parquet(folder / "a.parquet", columns(pairs, "url", "caption"), 4)]}


def coco(folder: Path, pairs: Pairs) -> dict[str, Json]:
    document = {
        "images": [{"id": 10 + n, "file_name": f"{n}.jpg"} for n in range(4)],
        "annotations": [{"image_id": 10 + n // 2, "caption": pair[1]} for n, pair in enumerate(pairs)],
    }
    return {"preset": "coco", "files": [write_json(folder / "c.json", document)], "folder": str(folder)}


def karpathy(folder: Path, pairs: Pairs) -> dict[str, Json]:
    images = [
        {"filename": f"{n}.jpg", "split": "test", "sentences": [{"raw": pair[1]} for pair in pairs[2 * n : 2 * n + 2]]}
        for n in range(4)
    ]
    other = {"filename": "o.jpg", "split": "train", "sentences": [{"raw": "of another split"}]}
    files = [write_json(folder / "k.json.gz", {"images": [other, *images], "dataset": "x"})]
    return {"preset": "karpathy", "files": files, "folder": str(folder), "split": "test"}


def webdataset(folder: Path, pairs: Pairs) -> dict[str, Json]:
    captions = [caption for _, caption in pairs]
    told = [("json", {"captions": captions[:2]}), ("txt", captions[2]), ("json", {"caption": captions[3]})]
    told += [("json", {"captions": captions[4:]})]
    files = []
    for n, (kind, content) in enumerate(told):
        text = content if isinstance(content, str) else json.dumps(content)
        files += [(f"{n}.jpg", PICTURE), (f"{n}.{kind}", text.encode())]
    return {"preset": "webdataset", "files": [write_tar(folder / "w.tar", files)]}


WRITERS: dict[str, Callable[[Path, Pairs], dict[str, Json]]] = {
    "cc3m": cc3m,
    "cc12m": cc12m,
    "sbu": sbu,
    "sbu_text": sbu_text,
    "coyo": coyo,
    "laion": laion,
    "table csv": table_csv,
    "table tsv": table_tsv,
    "table jsonl": table_jsonl,
    "table parquet": table_parquet,
    "coco": coco,
    "karpathy": karpathy,
    "webdataset": webdataset,
}
LOCAL = {"coco", "karpathy", "webdataset"}


def test_every_preset_is_tried_here() -> None:
    assert {case.split()[0] for case in WRITERS} == set(PRESETS)


@pytest.mark.parametrize("case", WRITERS)
def test_pairs_come_out_as_they_were_listed(case: str, tmp_path: Path) -> None:
    source = {"name": "some-list_1", **WRITERS[case](tmp_path, PAIRS)}
    assert check_sources(recipe_of(source)) == []
    made = ingest(tmp_path / "root", source)
    assert made.rejects == []
    assert [row["pair_id"] for row in made.urls] == [f"some-list_1-{n:010d}" for n in range(len(PAIRS))]
    assert [row["caption"] for row in made.urls] == [caption for _, caption in PAIRS]
    assert [row["url"] for row in made.urls] == [None if case in LOCAL else url for url, _ in PAIRS]


@pytest.mark.parametrize("case", WRITERS)
def test_rows_do_not_depend_on_the_shard_size(case: str, tmp_path: Path) -> None:
    source = {"name": "mine", **WRITERS[case](tmp_path, PAIRS)}
    whole = ingest(tmp_path / "whole", source)
    for size in (1, 3):
        parts = ingest(tmp_path / str(size), source, shard_size=size)
        assert parts.urls == whole.urls
        assert len(parts.records) == -(-len(PAIRS) // size)
        assert max(record.rows_in for record in parts.records) == size


def test_pictures_on_disk_are_named_with_their_folder_and_share_an_image_id(tmp_path: Path) -> None:
    made = ingest(
        tmp_path / "root", {"name": "coco", **coco(tmp_path, PAIRS)}, {"name": "k", **karpathy(tmp_path, PAIRS)}
    )
    n = len(PAIRS)
    for rows, ids in ((made.urls[:n], ["10", "11", "12", "13"]), (made.urls[n:], [f"{i}.jpg" for i in range(4)])):
        assert [row["local_path"] for row in rows] == [f"{tmp_path}/{row // 2}.jpg" for row in range(n)]
        assert [row["image_id"] for row in rows] == [ids[row // 2] for row in range(n)]
        assert all(row["local_offset"] is None for row in rows)


def test_pictures_in_a_tar_are_named_by_their_bytes(tmp_path: Path) -> None:
    made = ingest(tmp_path / "root", {"name": "wds", **webdataset(tmp_path, PAIRS)})
    tar = (tmp_path / "w.tar").read_bytes()
    for row in made.urls:
        assert row["local_path"] == str(tmp_path / "w.tar")
        assert tar[row["local_offset"] :][: row["local_bytes"]] == PICTURE
    assert [row["image_id"] for row in made.urls] == ["w/0", "w/0", None, None, "w/3", "w/3", "w/3"]


def test_scores_of_the_source_are_kept(tmp_path: Path) -> None:
    made = ingest(tmp_path / "root", {"name": "coyo", **coyo(tmp_path, PAIRS)})
    for score in ("nsfw", "watermark"):
        assert [row[score] for row in made.urls] == pytest.approx([n / 10 for n in range(len(PAIRS))])


def test_columns_may_be_renamed_for_a_preset_that_reads_by_name(tmp_path: Path) -> None:
    table = columns(PAIRS, "url", "alt_text") | {"unsafe": [0.5] * len(PAIRS)}
    source = {"name": "coyo", "preset": "coyo", "files": [write_parquet(tmp_path / "a.parquet", table)]}
    made = ingest(tmp_path / "root", source | {"columns": {"caption": "alt_text", "nsfw": "unsafe"}})
    assert [(row["url"], row["caption"], row["nsfw"]) for row in made.urls] == [(*pair, 0.5) for pair in PAIRS]
