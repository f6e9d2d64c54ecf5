"""Exact search equals sorting everything, with ties and exclusions; same images are found by every rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.commits import Whole
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from stages.index.exact import best_first, exact_search, exact_similarity
from stages.index.recall import interval, recall_of_each
from stages.index.same_image import same_image_rows
from stages.index.vectors import Vectors
from tests.stages.index.corpora import Drawn, unit


@dataclass(frozen=True)
class Tied(Drawn):
    """Vectors of few distinct values: most similarities are shared by many rows."""

    @property
    def images(self) -> Any:
        rng = np.random.default_rng(self.seed)
        return unit(rng.integers(0, 2, (self.rows, self.width)) + np.eye(1, self.width))


@dataclass(frozen=True)
class Told(Drawn):
    """Rows with given columns."""

    columns: tuple[dict[str, Any], ...] = ()

    def row(self, number: int) -> dict[str, Any]:
        return super().row(number) | self.columns[number]

    def settings(self) -> Mapping[str, Any]:
        return {}


def corpus(root: Path, drawn: Drawn) -> Whole:
    Run(str(root), [drawn]).execute(LocalExecutor())
    return Whole.open(str(root), "corpus")


@pytest.mark.parametrize("k", [1, 10, 400, 700])
def test_exact_search_is_sorting_everything(k: int, tmp_path: Path) -> None:
    drawn = Tied(rows=600, width=4, shards=7)
    queries = drawn.images[::40].astype(np.float64)
    exclude = [np.arange(number, 600, number + 2) for number in range(len(queries))]
    ids, similarity = exact_search(Vectors([corpus(tmp_path, drawn)], "image"), queries, k, exclude)
    for number, query in enumerate(queries):
        left = np.setdiff1d(np.arange(600), exclude[number])
        every = drawn.images.astype(np.float64)[left] @ query
        order = np.lexsort((left, -every))[:k]
        np.testing.assert_array_equal(ids[number, : len(order)], left[order])
        np.testing.assert_array_equal(similarity[number, : len(order)], every[order])
        assert (ids[number, len(order) :] == -1).all()
        assert (similarity[number, len(order) :] == -np.inf).all()


def test_rows_of_equal_bytes_are_equally_similar_to_any_query(tmp_path: Path) -> None:
    images = Vectors([corpus(tmp_path, Tied(rows=300, width=7, shards=3))], "image")
    ids = np.broadcast_to(np.arange(300), (5, 300))
    similarity = exact_similarity(images, np.random.default_rng(1).standard_normal((5, 7)), ids)
    rows = images.gather(np.arange(300))
    for row in range(300):
        equal = (rows == rows[row]).all(axis=1)
        assert (similarity[:, equal] == similarity[:, [row]]).all()


def test_padding_is_ranked_last() -> None:
    ids, similarity = best_first(np.array([[7, -1, 3, 5]]), np.array([[0.5, -np.inf, 0.5, 0.9]]), 4)
    assert ids.tolist() == [[5, 3, 7, -1]]
    assert similarity.tolist() == [[0.9, 0.5, 0.5, -np.inf]]


def test_gathering_follows_the_order_asked_for_and_refuses_what_is_no_row(tmp_path: Path) -> None:
    drawn = Drawn(rows=50, width=8, shards=4)
    images = Vectors([corpus(tmp_path, drawn)], "image")
    asked = np.array([49, 0, 13, 13, 30])
    np.testing.assert_array_equal(images.gather(asked), drawn.images[asked])
    with pytest.raises(IndexError, match="row ids -1 to 3 of 50 rows"):
        images.gather(np.array([3, -1]))


def test_a_hit_reaches_the_exact_kth_and_short_queries_are_asked_for_what_there_is() -> None:
    exact = np.array([[0.9, 0.8, 0.8], [0.7, -np.inf, -np.inf]])
    found = np.array([[0.8, 0.8, 0.1], [0.7, -np.inf, -np.inf]])
    assert recall_of_each(found, exact, 1).tolist() == [0, 1]
    assert recall_of_each(found, exact, 2).tolist() == [1, 1]  # a tie with the second is a hit
    assert recall_of_each(found, exact, 3).tolist() == [2 / 3, 1]


def test_the_interval_is_never_empty_and_holds_the_mean() -> None:
    assert interval(0.95, 1000) == pytest.approx((0.93470, 0.96187), abs=1e-4)  # R: prop.test(950, 1000, correct=F)
    assert interval(1.0, 300)[0] < 0.99


def test_same_images_are_those_of_equal_bytes_or_image_id_or_of_one_hash_and_alike(tmp_path: Path) -> None:
    row = {"phash": 1, "source": "a"}
    told = Told(
        rows=22,
        width=64,
        shards=2,
        columns=(
            {**row, "phash": 100, "stored_sha256": "x"},
            {**row, "stored_sha256": "x"},  # the bytes of row 0
            {**row, "image_id": "7", "phash": 102},
            {**row, "image_id": "7", "phash": 103},  # one image of one source with row 2
            {**row, "image_id": "7", "phash": 104, "source": "b"},  # another source
            *({**row, "phash": 200 + number} for number in range(5, 10)),
            {**row, "phash": 9},
            *({**row, "phash": 9} for _ in range(11, 20)),  # the hash of row 10, and other pictures
            {**row, "phash": 9},  # the hash of row 10, and its very vector
            {**row, "phash": 300},
        ),
    )
    whole = corpus(tmp_path, told)
    found = same_image_rows([whole], Vectors([whole], "image"), np.array([0, 2, 4, 10, 21]))
    assert [rows.tolist() for rows in found] == [[0, 1], [2, 3], [4], [10, 20], [21]]
