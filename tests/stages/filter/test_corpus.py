"""The corpus is the kept pairs, in one order, numbered without a gap, with their own embeddings and pictures."""

import json
import shutil
import tarfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from pipeline.commits import Whole
from pipeline.errors import InputError
from pipeline.run import Base
from pipeline.schemas import PAIRS
from stages.filter import CorpusReader, FilterRecipe, Thresholds
from stages.filter.judge import fault_of
from tests.stages.filter.making import Made, crawl, filtered, in_shards, random_pairs
from tests.stages.filter.test_duplicates import brute_force
from tests.stages.filter.test_judge import judged_pair
from tests.toys import data_of

COLUMNS = ("pair_id", "source", "image_id", "url", "caption", "stored_sha256")


def pairs_of(seed: int, *sources: str, rows: int = 40) -> list[Made]:
    random = Random(seed)
    return [pair for source in sources for pair in random_pairs(random, source, rows)]


def one_table(pairs: list[Made], recipe: FilterRecipe) -> list[Made]:
    """The corpus of one input, the slow way."""
    embedded = [pair for pair in pairs if pair.reason is None]
    kept = [pair for pair in embedded if fault_of(judged_pair(**vars(pair)), recipe.thresholds(pair.source)) is None]
    dropped = brute_force(kept) if recipe.duplicates == "drop" else {}
    return sorted((pair for pair in kept if pair.pair_id not in dropped), key=lambda pair: pair.pair_id)


def check(root: str, expected: list[Made]) -> None:
    """Rows, order, numbers, embeddings and pictures of a corpus."""
    reader = CorpusReader(root)
    assert reader.rows == len(expected)
    row_id = 0
    for shard in reader.shards():
        assert shard.first_row_id == row_id
        assert shard.metadata.schema == PAIRS
        assert len(shard.img_emb) == len(shard.text_emb) == shard.metadata.num_rows == shard.rows
        for row, image, text in zip(shard.metadata.to_pylist(), shard.img_emb, shard.text_emb, strict=True):
            pair = expected[row_id]
            assert row["row_id"] == row_id
            assert {name: row[name] for name in COLUMNS} == {name: getattr(pair, name) for name in COLUMNS}
            np.testing.assert_array_equal(image, pair.picture.vector)
            np.testing.assert_array_equal(text, -pair.picture.vector)
            assert reader.picture(row) == pair.picture.jpeg
            assert reader.row(row_id) == row
            row_id += 1
    assert row_id == len(expected)


@pytest.mark.parametrize("images", ["link", "copy"])
@pytest.mark.parametrize("duplicates", ["keep", "drop"])
@pytest.mark.parametrize(("shard_rows", "download_rows"), [(9, 30), (40, 19)])
def test_a_corpus_is_what_one_table_would_give(
    shard_rows: int, download_rows: int, duplicates: str, images: str, tmp_path: Path
) -> None:
    pairs = pairs_of(4, "coyo", "cc3m", "cc3m-two")
    recipe = FilterRecipe(
        sources={"cc3m": Thresholds(min_clip_score=None)},
        duplicates=duplicates,
        images=images,
        shard_rows=shard_rows,
    )
    root = filtered(tmp_path, recipe, in_shards(pairs, download_rows))
    expected = one_table(pairs, recipe)
    check(root, expected)
    sizes = [summary.rows_out for summary in Whole.open(root, "corpus").shards.values()]
    assert set(sizes[:-1]) <= {shard_rows}
    assert 0 < sizes[-1] <= shard_rows
    assert sum(sizes) == len(expected) > shard_rows


def test_another_shard_size_gives_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    shards = in_shards(pairs_of(5, "cc3m"), 20)
    roots = [filtered(tmp_path / str(rows), FilterRecipe(shard_rows=rows), shards) for rows in (3, 1000)]
    tables, images = (
        [[getattr(shard, name) for shard in CorpusReader(root).shards()] for root in roots]
        for name in ("metadata", "img_emb")
    )
    rows = [[row for table in found for row in table.to_pylist()] for found in tables]
    assert rows[0] == rows[1]
    np.testing.assert_array_equal(np.concatenate(images[0]), np.concatenate(images[1]))


@pytest.mark.parametrize("images", ["link", "copy"])
def test_the_same_input_gives_the_same_bytes(images: str, tmp_path: Path) -> None:
    recipe = FilterRecipe(duplicates="drop", images=images, shard_rows=9)
    roots = [filtered(tmp_path / name, recipe, in_shards(pairs_of(6, "cc3m"), 20)) for name in ("a", "b")]
    for stage in ("filter_judge", "filter_duplicates", "corpus"):
        assert data_of(roots[0], stage) == data_of(roots[1], stage)


def test_folders_and_arrays_are_those_that_other_tools_read(tmp_path: Path) -> None:
    filtered(tmp_path, FilterRecipe(shard_rows=10), in_shards(pairs_of(7, "cc3m"), 20))
    data = tmp_path / "corpus" / "data"
    names = [
        sorted(p.stem.removeprefix(f"{kind}_") for p in (data / kind).iterdir())
        for kind in ("img_emb", "text_emb", "metadata")
    ]
    assert names[0] == names[1] == names[2]
    for path in data.glob("*_emb/*.npy"):
        array = np.load(path)
        assert array.dtype == np.float16
        assert array.flags.c_contiguous
        assert path.name.startswith(path.parent.name)


def test_copied_pictures_lie_in_tars_with_caption_and_metadata(tmp_path: Path) -> None:
    root = filtered(tmp_path, FilterRecipe(images="copy", shard_rows=8), in_shards(pairs_of(8, "cc3m"), 20))
    for shard in CorpusReader(root).shards():
        with tarfile.open(shard.committed.path("images")) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
            offsets = {member.name: member.offset_data for member in tar}
        rows = shard.metadata.to_pylist()
        assert list(members) == [f"{row['pair_id']}.{kind}" for row in rows for kind in ("jpg", "txt", "json")]
        for row in rows:
            key = row["pair_id"]
            assert (row["input"], row["shard"], row["offset"]) == (-1, shard.id, offsets[f"{key}.jpg"])
            assert len(members[f"{key}.jpg"]) == row["bytes"]
            assert members[f"{key}.txt"].decode() == row["caption"]
            told = json.loads(members[f"{key}.json"])
            assert (told["key"], told["row_id"], told["stored_sha256"]) == (key, row["row_id"], row["stored_sha256"])


# ── several roots ──


def test_several_roots_follow_each_other_and_a_second_pass_fits_between(tmp_path: Path) -> None:
    pairs = [Made(f"cc3m-{n:010d}", picture=Made().picture) for n in range(30)]
    first, second, coyo = pairs[::3], [pair for n, pair in enumerate(pairs) if n % 3], pairs_of(3, "a-coyo")
    roots = (
        crawl(tmp_path / "first", in_shards(first, 4), lists={"cc3m": "aa"}),
        crawl(tmp_path / "second", in_shards([*second, *coyo], 7), lists={"cc3m": "aa", "a-coyo": "bb"}),
    )
    for images in ("link", "copy"):
        recipe = FilterRecipe(inputs=roots, shard_rows=11, images=images)
        check(filtered(tmp_path / images, recipe), one_table(first, recipe) + one_table(second + coyo, recipe))


def test_a_duplicate_in_another_root_is_found(tmp_path: Path) -> None:
    early, late = Made("cc3m-0000000001"), Made("coyo-0000000001")
    roots = (crawl(tmp_path / "late", [[late]]), crawl(tmp_path / "early", [[early]]))
    check(filtered(tmp_path / "both", FilterRecipe(inputs=roots, duplicates="drop")), [early])


# ── where pictures are found ──


def test_a_root_that_was_moved_still_shows_its_pictures(tmp_path: Path) -> None:
    pairs = pairs_of(11, "cc3m", rows=20)
    root = filtered(tmp_path / "here", FilterRecipe(), in_shards(pairs, 9))
    shutil.move(root, tmp_path / "there")
    check(str(tmp_path / "there"), one_table(pairs, FilterRecipe()))


def test_a_corpus_with_another_threshold_on_a_base_shows_the_bases_pictures(tmp_path: Path) -> None:
    shards = in_shards(pairs_of(12, "cc3m", rows=40), 9)
    base = Base(root=filtered(tmp_path / "base", FilterRecipe(), shards))
    stricter = FilterRecipe(defaults=Thresholds(min_clip_score=0.35))
    root = filtered(tmp_path / "new", stricter, shards, base=base)
    assert not (tmp_path / "new" / "download" / "data").exists()
    check(root, one_table([pair for shard in shards for pair in shard], stricter))
    same = filtered(tmp_path / "same", FilterRecipe(), shards, base=base)
    check(same, one_table([pair for shard in shards for pair in shard], FilterRecipe()))


def test_a_row_id_outside_the_corpus_is_refused(tmp_path: Path) -> None:
    reader = CorpusReader(filtered(tmp_path, FilterRecipe(), [[Made()]]))
    assert (reader.rows, reader.width) == (1, 16)
    for row_id in (-1, 1):
        with pytest.raises(IndexError, match="which has 1 rows"):
            reader.row(row_id)


# ── nothing left ──


def test_an_empty_corpus_says_which_reasons_and_which_settings(tmp_path: Path) -> None:
    scores = [Made(f"cc3m-{n:010d}", clip_score=0.1) for n in range(3)]
    shards: list[list[Made]] = [scores, [Made("cc3m-0000000003", size=(9, 9)), Made("cc3m-0000000004", caption="!!!")]]
    with pytest.raises(InputError) as error:
        filtered(tmp_path, FilterRecipe(), shards)
    assert "of 5 judged, low_clip_score 3 (filter.defaults.min_clip_score)" in str(error.value)
    assert "caption_no_letters 1 (filter.defaults.text.min_letters)" in str(error.value)


NO_PAIRS: list[list[list[Made]]] = [[], [[]]]


@pytest.mark.parametrize("duplicates", ["keep", "drop"])
def test_a_run_that_embedded_nothing_says_so(duplicates: Any, tmp_path: Path) -> None:
    for number, shards in enumerate(NO_PAIRS):
        with pytest.raises(InputError, match="was given no pair: see the rejects of ingest, download and embed"):
            filtered(tmp_path / str(number), FilterRecipe(duplicates=duplicates), shards)
