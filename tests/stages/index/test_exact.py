"""Exact search equals sorting everything, with ties and exclusions; same images are found by every rule."""

import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arithmetic import FLOAT32, MATRIX_UNITS
from pipeline.commits import Whole
from pipeline.errors import InputError
from pipeline.executor import LocalExecutor
from pipeline.intervals import interval
from pipeline.run import Run
from stages.index.exact import SPARE, Floats, best_first, exact_search, exact_similarity, float64_search
from stages.index.recall import KNOWN, KS, Queries, recall_of_each, remembered
from stages.index.same_image import same_image_rows
from stages.index.topk import CHUNK, Limits, Search, guard, nearest, products
from stages.index.vectors import Ids, Vectors
from tests.stages.index.corpora import Drawn, unit
from trials.benchmarks.exact import InMemory, exact

Found = tuple[Ids, Floats]


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


def assert_sorted_everything(found: Found, rows: InMemory, queries: Any, k: int, left: npt.NDArray[np.bool_]) -> None:
    """left (Q, N): which rows each query may find."""
    ids, similarity = found
    wide = np.asarray(queries, np.float64)
    for number, query in enumerate(wide):
        every = np.einsum("d,nd->n", query, rows.matrix.astype(np.float64))
        order = np.lexsort((np.arange(len(every)), -every))
        order = order[left[number, order]][:k]
        padding = k - len(order)
        np.testing.assert_array_equal(ids[number], [*order, *[-1] * padding])
        np.testing.assert_array_equal(similarity[number], [*every[order], *[-np.inf] * padding])


def assert_same(found: Found, expected: Found) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def everything(queries: Any, rows: InMemory) -> npt.NDArray[np.bool_]:
    return np.ones((len(queries), len(rows.matrix)), bool)


def doubts(rows: InMemory, queries: Any, k: int) -> int:
    """How many queries the approximate products cannot decide."""
    search = Search(rows, np.array(queries, np.float32), None, None)
    candidates, unseen = nearest(search, k + SPARE, "cpu", 32)
    kth = np.sort(exact_similarity(rows, queries, candidates), axis=1)[:, -k]
    return int((kth <= unseen).sum())


def near_ties(num: int, width: int, seed: int) -> npt.NDArray[np.float16]:
    """Copies of one unit vector, each with up to three of its values one step of float16 away."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(unit(rng.standard_normal((1, width))), num, axis=0)
    for _ in range(3):
        column = rng.integers(width, size=num)
        old = rows[np.arange(num), column]
        rows[np.arange(num), column] = np.nextafter(old, rng.choice(np.array([-1, 0, 1], np.float16), num))
    return rows


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num=st.integers(0, 400),
    width=st.integers(1, 40),
    k=st.integers(1, 60),
    block=st.integers(1, 150),
    tile_rows=st.sampled_from([8, 64, 1024]),
    queries_at_once=st.integers(1, 9),
    distinct=st.sampled_from([1, 2, 30, 10_000]),
    stored=st.booleans(),
)
def test_whatever_the_rows_the_sizes_and_the_order_of_reading(
    seed: int,
    num: int,
    width: int,
    k: int,
    block: int,
    tile_rows: int,
    queries_at_once: int,
    distinct: int,
    stored: bool,
) -> None:
    rng = np.random.default_rng(seed)
    drawn = unit(rng.standard_normal((min(distinct, max(num, 1)), width)))
    rows = InMemory(drawn[rng.integers(len(drawn), size=num)], block)
    queries = drawn[rng.integers(len(drawn), size=7)].astype(np.float32)
    if not stored:
        queries = queries + rng.standard_normal(queries.shape, np.float32)
    alive = rng.random(num) < 0.8
    exclude = [np.flatnonzero(rng.random(num) < share) for share in np.linspace(0, 1, 7)]
    left = np.array([alive & ~np.isin(np.arange(num), ids) for ids in exclude])
    per_query = 4 * tile_rows + 12 * CHUNK * min(k + SPARE, tile_rows)
    limits = Limits(tile_rows, queries_at_once * per_query)
    found = exact_search(rows, queries, k, exclude, alive, device="cpu", limits=limits)
    assert_sorted_everything(found, rows, queries, k, left)
    plain = float64_search(rows, queries, k, exclude, alive, tile_rows)
    assert_same(found, plain)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_rows_one_step_of_float16_apart_are_told_apart(scale: float) -> None:
    """Far more of them lie within the error of the products than are kept."""
    rows = InMemory(near_ties(2000, 512, 3))
    for queries in (rows.matrix[:20], scale * np.random.default_rng(4).standard_normal((20, 512), np.float32)):
        assert doubts(rows, queries, 10) == 20
        found = exact_search(rows, queries, 10, device="cpu")
        assert_sorted_everything(found, rows, queries, 10, everything(queries, rows))


def test_one_image_five_thousand_times_is_answered_by_the_smallest_ids() -> None:
    rng = np.random.default_rng(6)
    matrix = unit(rng.standard_normal((9000, 64)))
    copies = rng.permutation(9000)[:5000]
    matrix[copies] = matrix[0]
    queries = np.concatenate([matrix[:1], unit(matrix[:1] + 0.01 * rng.standard_normal((5, 64)))])
    for asked in (queries, queries + np.float32(1e-6)):
        ids, similarity = exact_search(InMemory(matrix), asked, 30, device="cpu")
        expected = np.sort(np.append(copies, 0) if 0 not in copies else copies)[:30]
        np.testing.assert_array_equal(ids, np.broadcast_to(expected, ids.shape))
        assert (similarity == similarity[:, :1]).all()


def test_many_queries_of_one_image_that_is_there_many_times_take_little_memory() -> None:
    matrix = unit(np.random.default_rng(6).standard_normal((600, 512)))
    matrix[:500] = matrix[0]
    tracemalloc.start()
    exact_search(InMemory(matrix), matrix[:100], 30, device="cpu")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 150e6  # 50,000 pairs of query and row, all equal, take 0.9 GB at once


@pytest.mark.parametrize("place", [3, 2500])
def test_a_vector_that_is_not_finite_is_refused_and_named(place: int) -> None:
    matrix = unit(np.random.default_rng(0).standard_normal((4000, 16)))
    rows = InMemory(matrix.copy())
    rows.matrix[place, 5] = np.nan
    with pytest.raises(InputError, match=f"row {place:,} of the 16 wide vectors that are searched holds values"):
        exact_search(rows, matrix[:5], 10, device="cpu")
    with pytest.raises(InputError, match="a query of an exact search holds values that are not finite"):
        exact_search(InMemory(matrix), rows.matrix[: place + 1], 10, device="cpu")
    alive = np.arange(4000) != place
    assert (exact_search(rows, matrix[:5], 10, alive=alive, device="cpu")[0] >= 0).all()


def test_the_fast_path_decides_nearly_all_queries_of_a_corpus_with_a_few_copies() -> None:
    rows = InMemory(Drawn(rows=5000, width=64).images)
    assert doubts(rows, rows.matrix[:500], 30) == 0


def test_the_order_of_the_rows_changes_nothing_but_their_ids() -> None:
    rows = Drawn(rows=3000, width=32).images
    order = np.random.default_rng(8).permutation(len(rows))
    ascending = np.argsort(rows.astype(np.float64) @ rows[0].astype(np.float64))  # every tile beats all before it
    by_id = exact_search(InMemory(rows), rows[:50], 20, device="cpu")[1]
    for permuted in (order, ascending):
        ids, similarity = exact_search(InMemory(rows[permuted]), rows[:50], 20, device="cpu", limits=Limits(64, 2**20))
        np.testing.assert_array_equal(similarity, by_id)
        np.testing.assert_array_equal(exact_similarity(InMemory(rows), rows[:50], permuted[ids]), by_id)


@pytest.mark.parametrize("width", [1, 3, 64, 512, 1024])
def test_no_product_is_further_off_than_its_bound(width: int) -> None:
    """Of one sign, so that nothing cancels, and of all magnitudes that float16 has."""
    rng = np.random.default_rng(width)
    rows = InMemory(np.ldexp(1 + rng.random((300, width)), rng.integers(-20, 0, (300, width))).astype(np.float16))
    for queries in (rows.matrix[:50].astype(np.float32), rng.random((50, width), np.float32)):
        search = Search(rows, queries, None, None)
        (tile,) = products(search, FLOAT32, "cpu", 304)
        off = np.abs(
            tile.values.double().numpy()[:, :300] - queries.astype(np.float64) @ rows.matrix.T.astype(np.float64)
        )
        assert (off <= guard(search, FLOAT32, float(tile.longest))[:, None]).all()


def test_the_bounds_are_those_of_the_arithmetic() -> None:
    assert 512 * FLOAT32.error == pytest.approx(3.2e-5, rel=0.02)
    assert 512 * MATRIX_UNITS.error == pytest.approx(1.3e-4, rel=0.01)


def test_the_benchmark_compares_every_k_with_the_bare_products() -> None:
    figures = dict(exact(num_queries=20, num_rows=3000, width=32, ks=(3, 30), repetitions=1))
    ratios = [float(figure.split()[0]) for what, figure in figures.items() if "ratio" in what]
    assert len(ratios) == 2
    assert all(ratio >= 0 for ratio in ratios)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_what_the_processor_finds() -> None:
    rows = InMemory(Drawn(rows=20_000, width=512).images)
    for queries in (rows.matrix[:300], rows.matrix[:300] + np.float32(1e-5)):
        assert_same(exact_search(rows, queries, 30, device="cuda"), float64_search(rows, queries, 30))


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


@pytest.mark.parametrize("kind", [Drawn, Tied])
def test_remembered_similarities_give_the_recall_that_gathered_ones_give(kind: type[Drawn], tmp_path: Path) -> None:
    """Tied: far more rows than are remembered tie with the last k-th."""
    images = Vectors([corpus(tmp_path, kind(rows=600, width=6, shards=3))], "image")
    asked = images.gather(np.arange(0, 600, 30)).astype(np.float32)
    exclude = [np.arange(n, 600, n + 2) for n in range(20)]
    neighbors, similarity = exact_search(images, asked, KNOWN, exclude)
    queries = Queries("image", asked, [], neighbors, similarity)
    ids = np.random.default_rng(2).permuted(np.tile(np.arange(-40, 600), (20, 1)), axis=1)[:, :300].clip(-1)
    for row, barred in zip(ids, exclude, strict=True):
        row[np.isin(row, barred)] = -1
    found, gathered = remembered(queries, images, ids), exact_similarity(images, asked, ids)
    for k in KS:
        for depth in (k, 50, 300):
            recall = recall_of_each(found[:, :depth], similarity, k)
            np.testing.assert_array_equal(recall, recall_of_each(gathered[:, :depth], similarity, k))


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
