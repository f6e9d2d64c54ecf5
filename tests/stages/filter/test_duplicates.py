"""The same picture is kept once, under its smallest pair_id; exactly as comparing every pair with every other."""

from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from pipeline.commits import Whole
from stages.filter import FilterRecipe, Thresholds
from stages.filter.same_picture import BLOCK, SAME_IMAGE_COSINE, Pictures, kept_copies
from tests.stages.filter.making import Made, Picture, filtered, in_shards, random_pairs, unit
from tests.toys import data_of

KEEP_ALL = Thresholds(min_clip_score=None, min_short_side_px=None, max_aspect=None, text=None)
DROP = FilterRecipe(defaults=KEEP_ALL, duplicates="drop")


def same_picture(one: Made, other: Made) -> bool:
    if one.image_id is not None and (one.source, one.image_id) == (other.source, other.image_id):
        return False
    cosine = sum(float(x) * float(y) for x, y in zip(one.picture.vector, other.picture.vector, strict=True))
    return one.stored_sha256 == other.stored_sha256 or (
        one.picture.phash == other.picture.phash and cosine >= SAME_IMAGE_COSINE
    )


def brute_force(pairs: list[Made]) -> dict[str, str]:
    """Dropped pair_id → the kept one that it repeats."""
    kept: list[Made] = []
    dropped = {}
    for pair in sorted((pair for pair in pairs if pair.reason is None), key=lambda pair: pair.pair_id):
        first = next((other for other in kept if same_picture(other, pair)), None)
        if first:
            dropped[pair.pair_id] = first.pair_id
        else:
            kept.append(pair)
    return dropped


def found_in(root: Path) -> dict[str, str]:
    rejects = [
        row for path in sorted(root.glob("filter_duplicates/rejects/*")) for row in pq.read_table(path).to_pylist()
    ]
    assert {row["reason"] for row in rejects} <= {"duplicate"}
    return {row["pair_id"]: row["detail"].removeprefix("of ") for row in rejects}


@pytest.mark.parametrize("seed", range(3))
def test_what_is_dropped_is_what_comparing_all_pairs_drops(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    pairs = [pair for source in ("coyo", "cc3m") for pair in random_pairs(random, source, 60)]
    filtered(tmp_path, DROP, in_shards(pairs, 17))
    expected = brute_force(pairs)
    assert found_in(tmp_path) == expected
    assert len(expected) > 10


def test_the_number_of_partitions_changes_nothing(tmp_path: Path) -> None:
    pairs = random_pairs(Random(9), "cc3m", 150)
    once = filtered(tmp_path / "once", DROP, in_shards(pairs, 40))
    often = filtered(tmp_path / "often", DROP, in_shards(pairs, 40), partition_rows=10)
    assert len(Whole.open(once, "filter_duplicates").shards) == 1
    assert len(Whole.open(often, "filter_duplicates").shards) > 8
    assert found_in(Path(once)) == found_in(Path(often)) == brute_force(pairs)
    assert data_of(once, "corpus") == data_of(often, "corpus")


def test_captions_of_one_image_are_not_duplicates_of_each_other_but_of_others(tmp_path: Path) -> None:
    pairs = [
        Made("cc3m-0000000000", image_id="7"),
        Made("cc3m-0000000001", image_id="7"),
        Made("cc3m-0000000002", image_id="8"),
        Made("cc3m-0000000003"),
    ]
    filtered(tmp_path, DROP, [pairs])
    assert found_in(tmp_path) == {f"cc3m-000000000{n}": "cc3m-0000000000" for n in (2, 3)}


def test_a_chain_of_likenesses_is_broken_at_the_dropped_one(tmp_path: Path) -> None:
    """0 is like 1 and 1 is like 2, but 2 is not like 0: 1 leaves, 2 stays."""
    angles = (0.0, 0.15, 0.3)  # cos 0.15 = 0.989, cos 0.3 = 0.955
    pictures = [
        Picture(b"%d" % n, 5, unit(np.eye(16)[0] * np.cos(a) + np.eye(16)[1] * np.sin(a))) for n, a in enumerate(angles)
    ]
    filtered(tmp_path, DROP, [[Made(f"cc3m-{n:010d}", picture=picture) for n, picture in enumerate(pictures)]])
    assert found_in(tmp_path) == {"cc3m-0000000001": "cc3m-0000000000"}


def test_keep_keeps_them(tmp_path: Path) -> None:
    pairs = [Made(f"cc3m-{n:010d}") for n in range(4)]
    root = filtered(tmp_path, FilterRecipe(), [pairs])
    assert Whole.open(root, "corpus").rows == 4


def _one_by_one(pictures: Pictures) -> npt.NDArray[np.int64]:
    copy_of = np.full(len(pictures.stored), -1, np.int64)
    for row in range(len(copy_of)):
        kept = np.flatnonzero(copy_of[:row] < 0)
        hits = kept[pictures.same(np.array([row]), kept)[0]]
        copy_of[row] = hits[0] if len(hits) else -1
    return copy_of


@pytest.mark.parametrize("spread", [0.0, 0.06, 0.4])
def test_thousands_of_one_phash_are_settled_as_one_by_one(spread: float) -> None:
    """Over several blocks: all alike, some alike, hardly any alike."""
    random = np.random.default_rng(3)
    rows = 4 * BLOCK + 3
    centers = random.normal(size=(40, 16))[random.integers(0, 40, rows)]
    vectors = np.array([unit(v) for v in centers + spread * random.normal(size=(rows, 16))])
    pictures = Pictures(vectors, random.integers(0, 2 * rows, rows), random.integers(-1, 30, rows))
    found = kept_copies(pictures)
    np.testing.assert_array_equal(found, _one_by_one(pictures))
    assert (found < 0).any()
    assert (found >= 0).any()
