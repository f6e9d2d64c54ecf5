"""A picture under many unrelated captions leaves with all its pairs; exactly as comparing all pairs finds it."""

from collections import defaultdict
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.commits import Whole
from pipeline.errors import InputError
from stages.filter import Duplicates, FilterRecipe, Placeholders, normalised
from stages.filter.placeholders import mean_cosine
from stages.filter.same_picture import SAME_IMAGE_COSINE
from tests.stages.filter.making import WIDTH, Made, Picture, Vector, filtered, in_shards, random_pairs, unit
from tests.stages.filter.test_duplicates import KEEP_ALL, brute_force

RULE = Placeholders(min_captions=4, max_similarity=0.3)
FIND = FilterRecipe(defaults=KEEP_ALL, placeholders=RULE)


def cosine(one: Vector, other: Vector) -> float:
    return sum(float(x) * float(y) for x, y in zip(one, other, strict=True))


def text(topic: float, number: int) -> Vector:
    """Of a caption: all of one topic 1 are alike, of topic 0 they are at right angles."""
    return unit(topic * np.eye(WIDTH)[0] + (1 - topic) * np.eye(WIDTH)[number % (WIDTH - 1) + 1])


def shows_the_same(one: Made, other: Made) -> bool:
    near = cosine(one.picture.vector, other.picture.vector) >= SAME_IMAGE_COSINE
    return one.stored_sha256 == other.stored_sha256 or (one.picture.phash == other.picture.phash and near)


def expected(pairs: list[Made]) -> set[str]:
    """The pairs of placeholders, by the definition."""
    clusters: list[list[Made]] = []
    for pair in sorted((pair for pair in pairs if pair.reason is None), key=lambda pair: pair.pair_id):
        own = next((cluster for cluster in clusters if shows_the_same(cluster[0], pair)), None)
        if own:
            own.append(pair)
        else:
            clusters.append([pair])
    return {pair.pair_id for cluster in clusters if is_placeholder(cluster) for pair in cluster}


def is_placeholder(cluster: list[Made]) -> bool:
    listings: dict[Any, Made] = {}
    for pair in cluster:
        listings.setdefault(pair.pair_id if pair.image_id is None else (pair.source, pair.image_id), pair)
    captions: dict[str, Made] = {}
    for pair in listings.values():
        captions.setdefault(normalised(pair.caption) or pair.caption, pair)
    if len(captions) < RULE.min_captions:
        return False
    texts = [pair.text for pair in captions.values() if pair.text is not None]
    return float(np.mean([cosine(*two) for two in combinations(texts, 2)])) <= RULE.max_similarity


def crowd(random: Random, source: str, rows: int) -> list[Made]:
    """Of few pictures, each under captions that agree more or less; one caption may be written in several ways."""
    topics: dict[bytes, float] = defaultdict(lambda: random.choice([0.2, 0.45, 0.7]))
    pairs: list[Made] = []
    for pair in random_pairs(random, source, rows // 4) * 4:
        number = random.randrange(12)
        written = random.choice(["caption {}", "Caption, {}!", " CAPTION {}"]).format(number)
        told = text(topics[pair.picture.jpeg[:12]], number)
        pairs.append(replace(pair, pair_id=f"{source}-{len(pairs):010d}", caption=written, text=told))
    return [*pairs, Made(f"{source}-{rows:010d}", caption="☺", picture=pairs[0].picture, text=text(0, 3))]


def rejected(root: Path) -> dict[str, dict[str, str]]:
    """Reason → pair_id → detail."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(root.glob("filter_duplicates/rejects/*")):
        for row in pq.read_table(path).to_pylist():
            found[row["reason"]][row["pair_id"]] = row["detail"]
    return found


@pytest.mark.parametrize(("seed", "partition_rows"), [(1, 1000), (2, 20)])
def test_what_leaves_is_what_comparing_everything_finds(seed: int, partition_rows: int, tmp_path: Path) -> None:
    random = Random(seed)
    pairs = [pair for source in ("coyo", "cc3m") for pair in crowd(random, source, 120)]
    filtered(tmp_path, FIND, in_shards(pairs, 50), partition_rows=partition_rows)
    found = rejected(tmp_path)
    assert found.keys() == {"placeholder"}
    assert found["placeholder"].keys() == expected(pairs)
    assert 10 < len(found["placeholder"]) < len(pairs) / 2


def test_copies_are_looked_for_among_the_rest(tmp_path: Path) -> None:
    pairs = crowd(Random(3), "cc3m", 160)
    root = filtered(tmp_path, FIND.model_copy(update={"duplicates": "drop"}), in_shards(pairs, 50))
    gone = expected(pairs)
    copies = brute_force([pair for pair in pairs if pair.pair_id not in gone])
    found = rejected(tmp_path)
    assert found["placeholder"].keys() == gone
    assert found["duplicate"].keys() == copies.keys()
    left = {pair.pair_id for pair in pairs if pair.reason is None} - gone - copies.keys()
    assert set(Whole.open(root, "corpus").tables("metadata")["pair_id"].to_pylist()) == left


def listed(captions: int, topic: float = 0, **changes: Any) -> list[Made]:
    rows = [Made(f"cc3m-{n:010d}", f"caption {n}", text=text(topic, n), **changes) for n in range(captions)]
    return [*rows, Made("cc3m-0000000099", picture=Picture(b"another", 8))]


@pytest.mark.parametrize(
    ("pairs", "leaves"),
    [
        (listed(4), True),
        (listed(3), False),  # too few
        (listed(4, topic=0.6), False),  # all of one thing
        (listed(8, image_id="7"), False),  # a source's own captions of its picture
    ],
)
def test_many_captions_that_have_nothing_in_common_make_a_placeholder(
    pairs: list[Made], leaves: bool, tmp_path: Path
) -> None:
    filtered(tmp_path, FIND, [pairs])
    found = rejected(tmp_path)["placeholder"]
    assert found.keys() == ({pair.pair_id for pair in pairs[:-1]} if leaves else set())
    assert set(found.values()) <= {"one picture under 4 captions of mean cosine 0.000"}


def test_both_limits_are_allowed(tmp_path: Path) -> None:
    at_right_angles = FIND.model_copy(update={"placeholders": Placeholders(min_captions=4, max_similarity=0)})
    filtered(tmp_path, at_right_angles, [listed(4)])
    assert len(rejected(tmp_path)["placeholder"]) == 4


def test_a_corpus_of_placeholders_alone_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"of 4 judged, placeholder 4 \(filter.placeholders\) left"):
        filtered(tmp_path, FIND, [listed(4)[:-1]])


def test_the_mean_is_that_of_all_pairs() -> None:
    random = np.random.default_rng(5)
    vectors = np.array([unit(v) for v in random.normal(size=(4200, WIDTH)) + 0.5])
    wide = vectors.astype(np.float64)
    products = wide @ wide.T
    of_two = (products.sum() - products.trace()) / (len(vectors) * (len(vectors) - 1))
    assert mean_cosine(vectors) == pytest.approx(of_two, abs=1e-12)


def test_without_the_setting_a_run_is_what_it_was() -> None:
    assert Duplicates(FilterRecipe(duplicates="drop")).settings() == {"partition_rows": 1_000_000}
    asked = [FIND, FIND.model_copy(update={"duplicates": "drop"}), FilterRecipe(placeholders=Placeholders())]
    assert len({str(Duplicates(recipe).settings()) for recipe in asked}) == 3
