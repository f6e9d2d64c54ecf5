"""The stage on the demo's web: every row ends once, for the reason in the truth table, in a layout that others read."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import webdataset
from PIL import Image

from demo.corpus import DemoCorpus, make_corpus
from demo.server import serve
from pipeline.commits import Committed, Whole
from pipeline.executor import LocalExecutor
from pipeline.reasons import Reason
from pipeline.run import Run
from pipeline.schemas import URLS
from pipeline.stage import Counts, Stage
from pipeline.writer import ShardWriter, Task
from stages.download import Download, DownloadRecipe
from stages.ingest import IngestRecipe, ingest_stages
from tests.toys import data_of


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, DemoCorpus]]:
    folder = tmp_path_factory.mktemp("crawl")
    with serve() as server:
        corpus = make_corpus(folder / "lists", seed=3, urls=400, base_url=server.base_url)
        server.answers = corpus.answers
        crawl(folder / "root", corpus)
        crawl(folder / "again", corpus)
        yield folder, corpus


def crawl(root: Path, corpus: DemoCorpus) -> None:
    sources = [{"name": name, "preset": name, "files": [str(path)]} for name, path in corpus.lists.items()]
    ingest = IngestRecipe.model_validate({"shard_size": 150, "sources": sources})
    download = DownloadRecipe(deadline_s=1.5, allow=corpus.allowed_addresses)
    stages = [*ingest_stages(ingest), Download(download)]
    assert Run(str(root), stages).execute(LocalExecutor()).exit_code == 0


def pairs(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "root" / "download" / "data" / "*.parquet")


def test_every_row_has_one_outcome_and_it_is_the_true_one(crawled: tuple[Path, DemoCorpus]) -> None:
    folder, corpus = crawled
    rejects = pl.read_parquet(folder / "root" / "*" / "rejects" / "*.parquet")
    stored = pairs(folder).filter(pl.col("reason").is_null()).select(pair_id="key")
    truth = pl.read_parquet(corpus.truth).with_columns(
        pair_id=pl.format("{}-{}", "source", pl.col("row").cast(pl.String).str.zfill(10))
    )
    outcomes = pl.concat([rejects.select("pair_id", "reason"), stored.with_columns(reason=pl.lit(None, pl.String))])
    assert sorted(outcomes["pair_id"]) == sorted(truth["pair_id"])
    judged_later = {reason.value for reason in Reason if reason.value.startswith("caption_")}
    judged_later |= {Reason.SMALL_IMAGE, Reason.EXTREME_ASPECT}
    for row in truth.join(outcomes, on="pair_id", suffix="_found").iter_rows(named=True):
        expected = None if row["reason"] in judged_later else row["reason"]
        assert row["reason_found"] == expected, row


def test_the_table_has_a_row_for_every_url_in_order(crawled: tuple[Path, DemoCorpus]) -> None:
    folder, _ = crawled
    urls = Whole.open(str(folder / "root"), "ingest_rows").tables("urls", ["pair_id"])["pair_id"].to_pylist()
    download = Whole.open(str(folder / "root"), "download")
    assert download.tables("pairs", ["key"])["key"].to_pylist() == urls


def test_pictures_lie_where_the_table_says(crawled: tuple[Path, DemoCorpus]) -> None:
    folder, _ = crawled
    download = Whole.open(str(folder / "root"), "download")
    for shard in download.shards:
        committed = download.read(shard)
        for row in committed.table("pairs").to_pylist():
            if row["reason"] is None:
                assert hashlib.sha256(bytes_of(committed, row)).hexdigest() == row["stored_sha256"]
                with Image.open(io.BytesIO(bytes_of(committed, row))) as image:
                    assert image.size == (row["width"], row["height"])


def bytes_of(committed: Committed, row: dict[str, int]) -> bytes:
    with committed.open("images") as tar:
        tar.seek(row["image_offset"])
        return tar.read(row["image_bytes"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
def test_webdataset_reads_the_tars(crawled: tuple[Path, DemoCorpus]) -> None:
    folder, _ = crawled
    good = pairs(folder).filter(pl.col("reason").is_null())
    captions = dict(zip(good["key"], good["caption"], strict=True))
    tars = sorted(str(path) for path in (folder / "root" / "download" / "data").glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False))
    assert {sample["__key__"]: sample["txt"].decode() for sample in samples} == captions
    assert all(json.loads(sample["json"])["key"] == sample["__key__"] for sample in samples)


def test_a_second_crawl_of_the_same_web_makes_the_same_tars(crawled: tuple[Path, DemoCorpus]) -> None:
    folder, _ = crawled
    once, again = (data_of(str(folder / name), "download") for name in ("root", "again"))
    tars = [key for key in once if key[1] == "images"]
    assert tars
    assert all(once[key] == again[key] for key in tars)


@dataclass(frozen=True)
class Fixed(Stage[None]):
    """Url rows as given, in ingest's place."""

    rows: Sequence[Mapping[str, Any]]
    name, version = "ingest_rows", 1

    def settings(self) -> Mapping[str, Any]:
        return {}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        out.table("urls", "{stem}.parquet", pa.Table.from_pylist(list(self.rows), schema=URLS))
        return Counts(len(self.rows), len(self.rows))


def test_local_pictures_pass_the_same_checks(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (600, 300), "teal").save(picture, "jpeg")
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = len(picture.getvalue())
        tar.addfile(info, io.BytesIO(picture.getvalue()))
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "empty.jpg").touch()
    places = [("some.tar", 512, info.size), ("page.jpg", None, None), ("empty.jpg", None, None), ("no.jpg", None, None)]
    rows = [
        {"pair_id": f"l-{n:010d}", "source": "l", "caption": "c", "local_path": str(tmp_path / path)}
        | {"local_offset": offset, "local_bytes": size}
        for n, (path, offset, size) in enumerate(places)
    ]
    root = tmp_path / "root"
    assert Run(str(root), [Fixed(rows), Download(DownloadRecipe(size_px=128))]).execute(LocalExecutor()).exit_code == 0
    found = Whole.open(str(root), "download").tables("pairs").to_pylist()
    assert [row["reason"] for row in found] == [None, Reason.NOT_AN_IMAGE, Reason.EMPTY_BODY, Reason.MISSING_FILE]
    assert (found[0]["width"], found[0]["height"], found[0]["original_width"]) == (256, 128, 600)
