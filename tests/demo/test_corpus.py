"""The lists are a function of the seed, and the truth table is true of them."""

from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from demo.corpus import DUPLICATE, FEWEST_URLS, GOOD, KINDS, MISMATCHED, SHARED_CAPTION, DemoCorpus, Row, make_corpus
from demo.pictures import encode
from demo.scenes import COLOURS, OBJECTS, PHRASINGS, caption
from demo.server import Delivery
from pipeline.reasons import Reason

BASE_URL = "http://127.0.0.1:8791"


def make(folder: Path, *, seed: int = 1, urls: int = 3000) -> DemoCorpus:
    return make_corpus(folder, seed=seed, urls=urls, base_url=BASE_URL)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DemoCorpus:
    return make(tmp_path_factory.mktemp("demo"))


def rows_of(corpus: DemoCorpus, kind: str) -> list[Row]:
    return [row for row in corpus.rows if row.kind.name == kind]


def written(corpus: DemoCorpus) -> list[bytes]:
    return [path.read_bytes() for path in (*corpus.lists.values(), corpus.truth)]


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, again = make(tmp_path / "a", urls=300), make(tmp_path / "b", urls=300)
    other = make(tmp_path / "c", urls=300, seed=2)
    assert written(first) == written(again)
    assert all(one != two for one, two in zip(written(first), written(other), strict=True))
    assert first.answers == again.answers
    assert [encode(row.picture) for row in first.rows[:40]] == [encode(row.picture) for row in again.rows[:40]]


def test_the_truth_table_has_one_row_a_line(corpus: DemoCorpus) -> None:
    truth = pl.read_parquet(corpus.truth)
    assert len(truth) == 3000
    for source, path in corpus.lists.items():
        lines = path.read_bytes().split(b"\n")[:-1]
        rows = truth.filter(pl.col("source") == source)
        assert rows["row"].to_list() == list(range(len(lines)))
        for line, url, text, kind in zip(lines, rows["url"], rows["caption"], rows["kind"], strict=True):
            columns = [text, url] if source == "cc3m" else [url, text]
            assert line.decode(errors="replace").split("\t") == columns[: 1 if kind == "missing_column" else 2]


def test_the_mix_has_every_kind_and_enough_good_pairs(corpus: DemoCorpus) -> None:
    numbers = Counter(row.kind.name for row in corpus.rows)
    assert set(numbers) == {kind.name for kind in KINDS}
    assert 0.6 <= numbers["good"] / 3000 <= 0.65
    assert numbers["mismatched"] == 180
    assert numbers["duplicate"] == 150
    assert sum(row.kind.reason is None and row.kind is not MISMATCHED for row in corpus.rows) > 2000


def test_every_reason_is_one_of_the_closed_set(corpus: DemoCorpus) -> None:
    assert set(pl.read_parquet(corpus.truth)["reason"].drop_nulls()) <= set(Reason)


def test_matched_captions_are_true_of_the_picture(corpus: DemoCorpus) -> None:
    for row in corpus.rows:
        if row.kind in (GOOD, DUPLICATE, SHARED_CAPTION):
            assert row.caption in [caption(row.picture.scene, phrasing) for phrasing in PHRASINGS]


def test_a_mismatched_caption_names_another_object_in_another_colour(corpus: DemoCorpus) -> None:
    for row in rows_of(corpus, "mismatched"):
        words = row.caption.replace(",", "").split()
        [colour] = set(words) & set(COLOURS)
        [name] = [name for name in OBJECTS if any(word.startswith(name) for word in words)]
        assert colour != row.picture.scene.colour
        assert name != row.picture.scene.object


def test_a_duplicate_has_the_bytes_of_a_good_pair_under_another_url(corpus: DemoCorpus) -> None:
    good = {row.picture: row for row in rows_of(corpus, "good")}
    for row in rows_of(corpus, "duplicate"):
        first = good[row.picture]
        assert first.url != row.url
        assert encode.__wrapped__(first.picture) == encode.__wrapped__(row.picture)


def test_a_shared_caption_stands_under_different_pictures(corpus: DemoCorpus) -> None:
    good = {row.caption: row for row in rows_of(corpus, "good")}
    for row in rows_of(corpus, "shared_caption"):
        assert encode(good[row.caption].picture) != encode(row.picture)


def test_pictures_are_of_many_sizes_on_both_sides_of_256_px(corpus: DemoCorpus) -> None:
    sizes = {(row.picture.width_px, row.picture.height_px) for row in rows_of(corpus, "good")}
    assert len(sizes) > 1000
    assert min(map(min, sizes)) >= 96
    assert max(map(max, sizes)) <= 320
    assert {min(size) >= 256 for size in sizes} == {True, False}


def test_urls_are_distinct_unless_the_row_is_about_a_bad_one(corpus: DemoCorpus) -> None:
    urls = [row.url for row in corpus.rows if row.kind.reason is not Reason.BAD_URL]
    assert len(urls) == len(set(urls))


def test_the_faults_of_the_list_are_in_its_bytes(corpus: DemoCorpus) -> None:
    lines = {kind: rows_of(corpus, kind)[0].line() for kind in ("not_utf8", "huge_caption", "missing_column")}
    with pytest.raises(UnicodeDecodeError):
        lines["not_utf8"].decode()
    assert 200_000 < len(lines["huge_caption"]) < 1_000_000
    assert b"\t" not in lines["missing_column"]
    for row in rows_of(corpus, "empty_caption"):
        assert row.line() == (f"\t{row.url}\n" if row.source == "cc3m" else f"{row.url}\t\n").encode()


def test_a_larger_corpus_has_no_more_slow_urls() -> None:
    for kind in KINDS:
        slow = kind.answer.delivery in (Delivery.DRIP, Delivery.ENDLESS)
        assert not slow or kind.num_rows(1_000_000) == kind.num_rows(3000) <= 6


def test_too_few_urls_for_every_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"needs {FEWEST_URLS} or more"):
        make(tmp_path, urls=FEWEST_URLS - 1)
    assert {row.kind for row in make(tmp_path, urls=FEWEST_URLS).rows} == set(KINDS)
