"""What is told of the samples is what the samples themselves say, counted the slow obvious way."""

import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from pipeline.commits import StageFolder, Whole
from pipeline.executor import LocalExecutor
from pipeline.reasons import Reason
from pipeline.run import Run, RunReport
from stages.filter import CorpusReader, FilterRecipe, Thresholds
from stages.interleave import InterleaveRecipe, interleave_stages
from stages.interleave.contact_sheet import CAPTION_LINES, GAP, PICTURE, draw_samples, save_contact_sheet, wrapped
from tests.stages.filter.making import Made, filtered, in_shards
from tests.stages.neighbors.crowded import Crowded, same_caption
from tests.stages.report.roots import make_pairs
from tests.toys import data_of

BAND = {"lo": 0.7, "hi": 1.05, "queries_per_task": 40}  # some queries of CORPUS starve in it, most do not
CORPUS = Crowded(rows=150)
MADE_HERE = ("interleave_gate", "interleave_report")


def interleave(root: Path, corpus: Path, **recipe: Any) -> RunReport:
    stages = interleave_stages(InterleaveRecipe.model_validate(recipe), [str(corpus)])
    return Run(str(root), stages).execute(LocalExecutor())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    Run(str(root), [CORPUS]).execute(LocalExecutor())
    return root


@pytest.fixture(scope="module", params=["skip", "short"])
def root(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("samples")
    assert interleave(root, corpus, materialize=False, on_starved=request.param, **BAND).exit_code == 0
    return root


def table(root: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Whole.open(str(root), "interleave_report").tables(name).to_pylist()
    return found


def figures(root: Path) -> Mapping[tuple[str, str | None], Any]:
    return {(row["figure"], row["source"]): row["value"] for row in table(root, "figures")}


def samples_of(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Whole.open(str(root), "interleaved").tables("samples").to_pylist()
    return found


def supported(root: Path) -> Counter[str]:
    return Counter(support for sample in samples_of(root) for support in sample["supports"])


def test_how_often_pairs_are_supports_adds_up_to_the_supports_that_were_written(root: Path) -> None:
    counted, uses = supported(root), table(root, "uses")
    assert sum(row["samples"] * row["pairs"] for row in uses) == counted.total() == figures(root)["supports", None]
    never = CORPUS.rows - len(counted)
    assert {row["samples"]: row["pairs"] for row in uses} == {
        **Counter(counted.values()),
        **({0: never} if never else {}),
    }


def test_the_hubs_are_the_pairs_that_are_supports_most_often(root: Path) -> None:
    counted, hubs = supported(root), table(root, "hubs")
    assert [row["samples"] for row in hubs] == [count for _, count in counted.most_common(20)]
    for row in hubs:
        assert CORPUS.row(row["row_id"]) | row == CORPUS.row(row["row_id"]) | {"samples": counted[row["pair_id"]]}


def test_equal_captions_are_those_that_a_reader_finds_in_the_samples(root: Path) -> None:
    own = [
        [same_caption(support["caption"], query["caption"]) for support in supports]
        for *supports, query in (sample["pairs"] for sample in samples_of(root))
    ]
    told = figures(root)
    assert told["share of the supports with the query's own caption", None] == np.mean(sum(own, []))
    assert told["share of the samples with such a support", None] == np.mean([any(marks) for marks in own])
    assert any(map(any, own))
    assert not all(map(any, own))


def test_the_starved_are_told_by_source(root: Path) -> None:
    mined = Whole.open(str(root), "interleave_mine").tables("supports").to_pylist()
    starved: dict[str, list[bool]] = {}
    for row in mined:
        starved.setdefault(CORPUS.row(row["row_id"])["source"], []).append(len(row["supports"]) < 4)
    told = figures(root)
    for source, marks in starved.items():
        assert told["share of the queries that starved", source] == np.mean(marks)
    assert told["share of the queries that starved", None] == np.mean(sum(starved.values(), []))
    assert 0 < np.mean(sum(starved.values(), [])) < 0.5


def test_histograms_and_means_are_those_of_the_samples(root: Path) -> None:
    samples = samples_of(root)
    for measure, column in (("caption_similarity", "caption_similarities"), ("distance", "distances")):
        rows = [row for row in table(root, "histograms") if row["measure"] == measure]
        for rank in range(1, 5):
            values = [sample[column][rank - 1] for sample in samples if len(sample[column]) >= rank]
            of_rank = [row for row in rows if row["rank"] == rank]
            assert sum(row["supports"] for row in of_rank) == len(values)
            width = of_rank[1]["edge"] - of_rank[0]["edge"]
            middle = sum((row["edge"] + width / 2) * row["supports"] for row in of_rank) / len(values)
            assert middle == pytest.approx(np.mean(values), abs=width / 2)
            if measure == "caption_similarity":
                told = figures(root)[f"mean caption similarity of support {rank}", None]
                assert told == pytest.approx(np.mean(values), abs=1e-6)


def test_the_probe_of_all_queries_starves_as_the_run_does(root: Path) -> None:
    rows = {(row["figure"], row["source"]): row for row in table(root, "figures")}
    probed = rows["share of the queries that starved, by the probe", None]
    assert probed["value"] == rows["share of the queries that starved", None]["value"]
    assert probed["low"] < probed["value"] < probed["high"]


def test_the_band_is_told_by_every_reading(root: Path) -> None:
    sizes = Whole.open(str(root), "interleave_probe").tables("band_sizes")
    rows = Whole.open(str(root), "interleave_gate").tables("band").to_pylist()
    assert [row["reading"] for row in rows if row["mined"]] == ["l2"]
    images = CORPUS.images.astype(np.float64)
    cosines = (images @ images.T)[~np.eye(len(images), dtype=bool)]
    for row in rows:
        assert row["pairs"] == pytest.approx(np.mean(sizes[row["reading"]].to_numpy()))
        inside = (cosines >= row["lowest_cosine"]) & (cosines <= row["highest_cosine"])
        assert row["pairs"] == pytest.approx(inside.sum() / len(images))
        assert row["low"] < row["pairs"] < row["high"]


def test_the_same_run_gives_the_same_tables_and_pictures(corpus: Path, tmp_path: Path) -> None:
    for name in ("once", "again"):
        assert interleave(tmp_path / name, corpus, materialize=False, **BAND).exit_code == 0
    for stage in MADE_HERE:
        assert data_of(str(tmp_path / "once"), stage) == data_of(str(tmp_path / "again"), stage)


def test_a_run_in_which_every_query_starves_is_told_too(corpus: Path, tmp_path: Path) -> None:
    nearly_none = {"lo": 1.98, "hi": 2.0, "max_starved": 1}
    assert interleave(tmp_path, corpus, materialize=False, **nearly_none).exit_code == 0
    told = figures(tmp_path)
    assert (told["queries", None], told["samples", None], told["supports", None]) == (CORPUS.rows, 0, 0)
    assert told["share of the samples with such a support", None] is None
    assert not table(tmp_path, "hubs")


def test_a_gate_that_stays_shut_says_where_the_probe_lies(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert interleave(tmp_path, corpus, lo=1.98, hi=2.0).exit_code == 1
    assert not StageFolder(str(tmp_path), "interleave_gate").committed()
    assert f"All that was seen stands in {tmp_path}/interleave_probe" in caplog.text
    assert [*(tmp_path / "interleave_probe" / "data").glob("band_sizes_*.parquet")]


# ── the contact sheet ──


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Made]]:
    """A corpus of pictures of one colour each, and its pairs."""
    pairs = [pair for pair in make_pairs(40) if pair.reason in (None, Reason.DNS)]
    loose = Thresholds(min_clip_score=None, text=None, max_aspect=None)
    return filtered(tmp_path_factory.mktemp("pictured"), FilterRecipe(defaults=loose), in_shards(pairs, 10)), pairs


def sheet(samples: list[dict[str, Any]], corpus: str, path: Path) -> Image.Image:
    save_contact_sheet("", samples, [CorpusReader(corpus)], path)
    return Image.open(io.BytesIO(path.read_bytes()))


def shown(sheet: Image.Image, column: int) -> tuple[float, ...]:
    """Mean colour of the middle of a picture in the first row."""
    left, top = GAP + column * (PICTURE + GAP), 2 * GAP + 17 + GAP
    middle = sheet.crop((left + 10, top + 40, left + PICTURE - 10, top + PICTURE - 40))
    return tuple(np.asarray(middle, np.float64).mean(axis=(0, 1)).tolist())


def sample_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The last one is the query; the others stand in the sample the other way round than by similarity."""
    pairs = [{"corpus": 0, **row} for row in rows]
    ranks = len(rows) - 1
    return {
        "pairs": pairs,
        "order": list(range(ranks))[::-1],
        "distances": [0.5] * ranks,
        "caption_similarities": [0.9] * ranks,
    }


def test_the_query_comes_first_then_the_supports_by_caption_similarity(
    pictured: tuple[str, list[Made]], tmp_path: Path
) -> None:
    corpus, pairs = pictured
    rows = [CorpusReader(corpus).row(number) for number in (3, 1, 2, 0)]
    jpegs = {pair.pair_id: pair.picture.jpeg for pair in pairs}
    found = sheet([sample_of(rows)], corpus, tmp_path / "sheet.png")
    for column, row in enumerate((rows[3], rows[2], rows[1], rows[0])):
        colour = np.asarray(Image.open(io.BytesIO(jpegs[row["pair_id"]])), np.float64).mean(axis=(0, 1))
        np.testing.assert_allclose(shown(found, column), colour, atol=3)


def test_a_deleted_picture_is_told_in_its_place_and_the_others_are_shown(
    pictured: tuple[str, list[Made]], tmp_path: Path
) -> None:
    corpus, _ = pictured
    reader = CorpusReader(corpus)
    rows = [reader.row(number) for number in (0, 1, reader.rows - 1)]
    assert len({row["shard"] for row in rows}) == 2
    whole = sheet([sample_of(rows)], corpus, tmp_path / "whole.png")
    Path(reader.tar_of(rows[-1])).unlink()
    found = sheet([sample_of(rows)], corpus, tmp_path / "without.png")
    assert [shown(found, column) == shown(whole, column) for column in range(3)] == [False, True, True]


def test_a_corpus_without_pictures_has_a_sheet(root: Path) -> None:
    with Whole.open(str(root), "interleave_report").read("000000").open("contact_sheet") as file:
        drawn = Image.open(file).convert("RGB")
    first, *_ = draw_samples(Whole.open(str(root), "interleaved"), 12, 0)
    assert drawn.width == GAP + 5 * (PICTURE + GAP)
    (same,) = {shown(drawn, column) for column in range(len(first["pairs"]))}
    assert same != (255, 255, 255)


def test_samples_are_drawn_by_the_seed_alone_and_none_twice(root: Path) -> None:
    samples = Whole.open(str(root), "interleaved")
    drawn = [[row["pairs"][-1]["pair_id"] for row in draw_samples(samples, 12, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 12
    everything = [row["pairs"][-1]["pair_id"] for row in draw_samples(samples, 10_000, 0)]
    assert everything == samples.tables("samples")["pair_id"].to_pylist()


@pytest.mark.parametrize(
    "caption", ["", "two dogs", "a " * 500, "x" * 900, "一" * 300, "a\n\tb\u202e<b>$x_1$", "é" * 40]
)
def test_a_caption_stays_within_its_picture(caption: str) -> None:
    font = ImageFont.load_default(13)
    assert isinstance(font, ImageFont.FreeTypeFont)
    lines = wrapped(caption, font, PICTURE)
    assert 1 <= len(lines) <= CAPTION_LINES
    assert all(font.getlength(line.rstrip("…")) <= PICTURE for line in lines)
    if not lines[-1].endswith("…"):
        assert "".join(lines).replace(" ", "") == "".join(caption.split())
