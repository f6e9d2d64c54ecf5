"""A sample is a query and its supports in a seeded order, told in parquet and, pictures and all, in tars."""

import io
import json
import shutil
import tarfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline.commits import StageFolder, Whole
from pipeline.errors import InputError
from pipeline.executor import LocalExecutor
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.run import Run
from pipeline.schemas import SAMPLES
from pipeline.stage import Stage
from stages.filter import CorpusReader, FilterRecipe, Thresholds, filter_stages
from stages.interleave import InterleaveRecipe, SampleReader, interleave_stages
from tests.stages.filter.making import Downloaded, Embedded, Made, Picture, Shards, in_shards, unit
from tests.stages.index.corpora import finish
from tests.stages.interleave.test_stages import BAND, Known, distance, mine
from tests.stages.neighbors.crowded import Crowded

NEAR = Crowded(rows=200)
FAR = Crowded(rows=130, seed=8, own="far", common="apart", shards=3)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """near, far, and near in other shards: corpora without pictures."""
    folder = tmp_path_factory.mktemp("roots")
    for name, corpus in {"near": NEAR, "far": FAR, "resharded": replace(NEAR, shards=9)}.items():
        finish(folder / name, [corpus])
    return folder


def samples_in(root: Path | str) -> list[dict[str, Any]]:
    table = Whole.open(str(root), "interleaved").tables("samples")
    assert table.schema.equals(SAMPLES)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def rejects_in(root: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in (root / "interleaved" / "rejects").glob("*.parquet")])


# ── the table ──


@pytest.mark.parametrize("metric", ["l2", "l2_squared", "cosine"])
def test_a_sample_says_what_the_definition_says(metric: str, roots: Path, tmp_path: Path) -> None:
    band: dict[str, Json] = {"metric": metric, "lo": 0.3, "hi": 0.9, "supports": 3}
    mine(tmp_path, roots / "near", roots / "far", **band)
    known, told = Known([NEAR, FAR]), {}
    for row in known.supports(InterleaveRecipe(**band)):
        pair_ids = [known.told[support]["pair_id"] for support in row["supports"]]
        told[known.told[row["row_id"]]["pair_id"], row["row_id"]] = pair_ids, row
    found = samples_in(tmp_path)
    for sample in found:
        corpus, query = sample["pairs"][-1]["corpus"], sample["pairs"][-1]["row_id"]
        pair_ids, row = told[sample["pair_id"], query + corpus * NEAR.rows]
        assert sample["supports"] == pair_ids
        assert sample["distances"] == [np.float32(distance(metric, cosine)) for cosine in row["image_cosines"]]
        assert sample["caption_similarities"] == [np.float32(cosine) for cosine in row["caption_cosines"]]
        assert sample["neighbors"] is None
    assert len(found) == sum(len(row["supports"]) == 3 for _, row in told.values()) > 100


def test_the_pairs_of_a_sample_are_rows_of_its_corpora(roots: Path, tmp_path: Path) -> None:
    mine(tmp_path, roots / "far", roots / "near")
    assert StageFolder(str(tmp_path), "interleave_mine").plan().resolved["corpora"] == [  # type: ignore[union-attr]
        str(roots / "far"),
        str(roots / "near"),
    ]
    corpora, met = (FAR, NEAR), set()
    for sample in samples_in(tmp_path):
        *supports, query = sample["pairs"]
        assert query["pair_id"] == sample["pair_id"]
        assert [pair["pair_id"] for pair in supports] == [sample["supports"][place] for place in sample["order"]]
        assert sorted(sample["order"]) == [0, 1, 2, 3]
        for pair in sample["pairs"]:
            row = corpora[pair["corpus"]].row(pair["row_id"])
            assert pair == {"corpus": pair["corpus"], **{name: row[name] for name in pair if name != "corpus"}}
        met |= {(query["corpus"], pair["corpus"]) for pair in supports}
    assert met == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_the_same_sample_has_the_same_order_in_a_resharded_corpus_and_beside_another(
    roots: Path, tmp_path: Path
) -> None:
    for name, corpora in {"a": ["near"], "b": ["resharded"], "c": ["far", "near"]}.items():
        mine(tmp_path / name, *(roots / corpus for corpus in corpora))
    a, b, c = (
        {(s["pair_id"], *s["supports"]): s["order"] for s in samples_in(tmp_path / name)} for name in ("a", "b", "c")
    )
    assert a == b
    shared = a.keys() & c.keys()
    assert len(shared) > 10
    assert {key: a[key] for key in shared} == {key: c[key] for key in shared}


def test_every_order_is_met_and_another_seed_gives_others(roots: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        mine(tmp_path / str(seed), roots / "near", roots / "far", seed=seed)
    first, second = ({s["pair_id"]: s["order"] for s in samples_in(tmp_path / str(seed))} for seed in (0, 1))
    same = sum(first[pair_id] == second[pair_id] for pair_id in first)
    assert same < len(first) / 5  # 1/24 by chance
    for place in range(4):
        told = np.bincount([order[place] for order in first.values()], minlength=4) / len(first)
        assert told.min() > 0.15


# ── starved queries ──


def test_starved_queries_are_rejects_and_sums_add_up(roots: Path, tmp_path: Path) -> None:
    mine(tmp_path, roots / "near", roots / "far")
    known = Known([NEAR, FAR])
    rows = known.supports(InterleaveRecipe(**BAND))
    starved = {
        (known.told[row["row_id"]]["pair_id"], f"{len(row['supports'])} of 4 supports")
        for row in rows
        if len(row["supports"]) < 4
    }
    rejects = rejects_in(tmp_path)
    assert set(rejects["reason"]) == {Reason.STARVED}
    assert set(zip(rejects["pair_id"], rejects["detail"], strict=True)) == starved
    assert 20 < rejects.height < len(rows) - 20
    assert len(samples_in(tmp_path)) + rejects.height == len(rows) == NEAR.rows + FAR.rows


def test_short_samples_hold_what_there_is(roots: Path, tmp_path: Path) -> None:
    mine(tmp_path, roots / "near", on_starved="short")
    samples = samples_in(tmp_path)
    expected = Known([NEAR]).supports(InterleaveRecipe(**BAND))
    assert [len(sample["supports"]) for sample in samples] == [len(row["supports"]) for row in expected]
    assert {len(sample["supports"]) for sample in samples} == {0, 1, 2, 3, 4}
    for sample in samples:
        found = len(sample["supports"])
        assert len(sample["pairs"]) == found + 1
        assert sorted(sample["order"]) == list(range(found))
        assert len(sample["distances"]) == len(sample["caption_similarities"]) == found
    assert not list((tmp_path / "interleaved").glob("rejects/*.parquet"))


def test_sources_restrict_queries_and_supports(roots: Path, tmp_path: Path) -> None:
    mine(tmp_path, roots / "near", roots / "far", sources=["flickr"], on_starved="short")
    corpora = (NEAR, FAR)
    sources = {corpora[p["corpus"]].row(p["row_id"])["source"] for s in samples_in(tmp_path) for p in s["pairs"]}
    assert sources == {"flickr"}
    assert len(samples_in(tmp_path)) == len(Known(corpora).of(["flickr"]))


# ── pictures ──


@cache
def jpeg(number: int) -> bytes:
    """A picture of its own colour."""
    red, green, blue = np.random.default_rng(number).integers(256, size=3).tolist()
    written = io.BytesIO()
    Image.new("RGB", (16, 12), (red, green, blue)).save(written, "JPEG", quality=60 + number % 35)
    return written.getvalue()


def pictured(source: str, rows: int, seed: int) -> list[Made]:
    """Pairs whose images lie at many distances from each other."""
    random, rng = Random(seed), np.random.default_rng(seed)
    return [
        Made(
            f"{source}-{number:010d}",
            caption=f"picture „{number}“ of {random.choice(['a dog', 'two cats', 'the sea — ä€'])}",
            picture=Picture(jpeg(1000 * seed + number), phash=number, vector=unit(rng.standard_normal(16))),
        )
        for number in range(rows)
    ]


@dataclass(frozen=True)
class ByModel(Embedded):
    """Says by which model, as an embedded run does."""

    def settings(self) -> Mapping[str, Json]:
        return {"model": "ViT-B-32", "weights": self.weights}


def crawl(root: Path, shards: Shards) -> str:
    return finish(root, [Downloaded(shards), ByModel(shards)])


def corpus(root: Path, shards: Shards = (), **recipe: Any) -> str:
    made: list[Stage[Any]] = [] if "inputs" in recipe else [Downloaded(shards), ByModel(shards)]
    every = Thresholds(min_clip_score=None)
    return finish(root, [*made, *filter_stages(FilterRecipe(defaults=every, **recipe))])


@dataclass(frozen=True)
class Pictured:
    folder: Path

    @property
    def corpora(self) -> list[str]:
        """Pictures in download tars, in tars of the corpus, and in those of two other roots."""
        return [str(self.folder / name) for name in ("link", "copy", "inputs")]

    def make(self, root: Path, **recipe: Json) -> Path:
        given = {**BAND, "max_starved": 0.9, **recipe}
        stages = interleave_stages(InterleaveRecipe(**given), self.corpora)
        assert Run(str(root), stages).execute(LocalExecutor()).exit_code == 0
        return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictured:
    folder = tmp_path_factory.mktemp("pictures")
    for images, seed in (("link", 1), ("copy", 2)):
        corpus(folder / images, in_shards(pictured(images, 60, seed), 25), shard_rows=40, images=images)
    crawled = [crawl(folder / name, in_shards(pictured(name, 40, seed), 30)) for name, seed in (("a", 3), ("b", 4))]
    corpus(folder / "inputs", inputs=crawled, shard_rows=30)
    return Pictured(folder)


@pytest.fixture(scope="module")
def written(pictures: Pictured, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples with their pictures in tars."""
    return pictures.make(tmp_path_factory.mktemp("written"), queries_per_task=1, on_starved="short")


def tars(root: Path | str) -> list[str]:
    whole = Whole.open(str(root), "interleaved")
    return [str(whole.read(shard).path("tar")) for shard in whole.shards]


def read_by_webdataset(paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the library itself leaves open
        import webdataset

        yield from webdataset.WebDataset(list(paths), shardshuffle=False)


def test_webdataset_reads_the_samples_as_the_table_tells_them(written: Path, pictures: Pictured) -> None:
    readers = [CorpusReader(root) for root in pictures.corpora]
    read, samples = list(read_by_webdataset(tars(written))), samples_in(written)
    assert [sample["__key__"] for sample in read] == [sample["pair_id"] for sample in samples]
    assert {len(sample["pairs"]) for sample in samples} >= {1, 5}
    for found, sample in zip(read, samples, strict=True):
        number = len(sample["pairs"])
        members = {f"{place}.{kind}" for place in range(number) for kind in ("jpg", "txt")} | {"json"}
        assert {name for name in found if not name.startswith("__")} == members
        for place, pair in enumerate(sample["pairs"]):
            row = readers[pair["corpus"]].row(pair["row_id"])
            assert found[f"{place}.jpg"] == readers[pair["corpus"]].picture(row)
            assert found[f"{place}.txt"].decode() == pair["caption"] == row["caption"]
        told = json.loads(found["json"])
        assert told["pair_ids"] == [pair["pair_id"] for pair in sample["pairs"]]
        assert told["order"] == sample["order"]
        for name in ("distances", "caption_similarities"):
            assert told[name] == pytest.approx(sample[name])
        assert told["neighbors"] is None


def test_pictures_come_from_every_kind_of_corpus(written: Path) -> None:
    met = {(s["pairs"][-1]["corpus"], pair["corpus"]) for s in samples_in(written) for pair in s["pairs"][:-1]}
    assert met == {(one, other) for one in range(3) for other in range(3)}
    inputs = {(pair["corpus"], pair["input"]) for s in samples_in(written) for pair in s["pairs"]}
    assert inputs == {(0, 0), (1, -1), (2, 0), (2, 1)}


def test_the_pictures_decode_and_show_what_they_should(written: Path) -> None:
    sample = next(sample for sample in read_by_webdataset(tars(written)) if "4.jpg" in sample)
    for place in range(5):
        with Image.open(io.BytesIO(sample[f"{place}.jpg"])) as picture:
            assert picture.convert("RGB").size == (16, 12)


def test_a_tar_holds_no_name_twice(written: Path) -> None:
    for path in tars(written):
        with tarfile.open(path) as tar:
            names = tar.getnames()
        assert len(names) == len(set(names))


def test_the_same_pictures_are_read_by_offset_where_none_are_written(
    written: Path, pictures: Pictured, tmp_path: Path
) -> None:
    root = pictures.make(tmp_path, queries_per_task=1, on_starved="short", materialize=False)
    assert not list(root.rglob("*.tar"))
    readers = [CorpusReader(corpus) for corpus in pictures.corpora]
    samples = samples_in(root)
    assert samples == samples_in(written)
    for sample, found in zip(samples, read_by_webdataset(tars(written)), strict=True):
        for place, pair in enumerate(sample["pairs"]):
            tar = Path(readers[pair["corpus"]].tar_of(pair))
            assert tar.read_bytes()[pair["offset"] :][: pair["bytes"]] == found[f"{place}.jpg"]


def test_a_reader_refuses_a_corpus_that_was_made_anew(tmp_path: Path) -> None:
    """Its pictures lie elsewhere: what is read at the old places would be others."""
    crawled = crawl(tmp_path / "crawl", in_shards(pictured("a", 60, 7), 25))
    root = Path(corpus(tmp_path / "corpus", inputs=[crawled]))
    stages = interleave_stages(InterleaveRecipe(**{**BAND, "max_starved": 1, "on_starved": "short"}), [str(root)])
    assert Run(str(tmp_path / "root"), stages).execute(LocalExecutor()).exit_code == 0
    sample = samples_in(tmp_path / "root")[0]
    reader = SampleReader(str(tmp_path / "root"))
    assert reader.pictures(sample)[-1] == CorpusReader(str(root)).picture(sample["pairs"][-1])
    shutil.rmtree(root)
    Whole.open.cache_clear()  # as in another process
    corpus(root, inputs=[crawl(tmp_path / "other", in_shards(pictured("a", 60, 8), 25))])
    with pytest.raises(InputError, match="is not the one that the samples in"):
        SampleReader(str(tmp_path / "root")).pictures(sample)


def test_two_corpora_that_share_a_pair_id_are_refused(tmp_path: Path) -> None:
    """As two splits of one list are that bear one name."""
    roots = [corpus(tmp_path / name, [pictured("cc3m", 50, seed)]) for name, seed in (("ours", 5), ("theirs", 6))]
    stages = interleave_stages(InterleaveRecipe(**BAND), roots)
    with pytest.raises(
        InputError, match=r"rows 0 and 50 of the corpora both bear the pair id cc3m-0000000000 \(50 such"
    ):
        Run(str(tmp_path / "root"), stages).execute(LocalExecutor())
