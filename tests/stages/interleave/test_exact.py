"""Every engine finds the very supports that sorting everything finds, with the same bits, whatever the pairs are."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.interleave.axes import Axes
from stages.interleave.band import Band, Metric
from stages.interleave.pairs import Tile
from stages.interleave.products import Products
from stages.interleave.supports import Engine, Half, Ids, Rule, Supports
from stages.interleave.sweep import LEADS, Lead, Sweep
from stages.neighbors import NONE
from tests.stages.index.corpora import unit
from tests.stages.interleave.in_memory import (
    SAME_PHASH,
    InMemory,
    astride,
    at_cosine,
    brute_force,
    pairs_of,
    sentence_pairs,
)

Build = Callable[[InMemory, Rule], Engine]
METRICS: tuple[Metric, ...] = get_args(Metric)
EVERY_COSINE = Band("cosine", 0, 2)
FAR_HASH = 2**63 + 7  # negative where it is read as signed
COLUMNS = ("rows", "image_cosines", "caption_cosines")


def swept(lead: Lead, pairs: InMemory, rule: Rule) -> Sweep:
    images, captions = (Axes.of(side[pairs.wanted]) for side in (pairs.images, pairs.captions))
    return Sweep(pairs, rule, images, captions, lead)


ENGINES: dict[str, Build] = {
    **{f"sweep led by {lead}s": partial(swept, lead) for lead in LEADS},
    "products on a processor": partial(Products, device="cpu"),
    "products on a GPU": partial(Products, device="cuda"),
}


def usable(name: str) -> bool:
    return "GPU" not in name or torch.cuda.is_available()


@pytest.fixture(params=ENGINES)
def build(request: pytest.FixtureRequest) -> Build:
    if not usable(request.param):
        pytest.skip("needs a GPU")
    return ENGINES[request.param]


def assert_same(found: Supports, expected: Supports) -> None:
    for column in COLUMNS:
        ours, theirs = getattr(found, column), getattr(expected, column)
        np.testing.assert_array_equal(ours, theirs, column)
        np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs), column)


def assert_exact(build: Build, pairs: InMemory, rule: Rule, asking: Ids | None = None) -> Supports:
    """→ what is found. asking: all."""
    queries = pairs.queries(np.arange(len(pairs)) if asking is None else asking)
    found = build(pairs, rule).mine(queries)
    assert_same(found, brute_force(pairs, queries, rule))
    return found


def listed(found: Supports, query: int) -> list[int]:
    rows: list[int] = found.rows[query, : found.found[query]].tolist()
    return rows


# ── the edges of the band ──


@cache
def astride_the_edges(metric: Metric, width: int) -> tuple[InMemory, npt.NDArray[np.int64]]:
    """Queries, and behind them rows astride both edges of each one's band. → pairs, (rows, 3): a row's query, whether
    it belongs into the band, and in float32 lies on the edge."""
    random, band = np.random.default_rng([METRICS.index(metric), width]), Band(metric, 0.4, 0.6)
    queries = unit(random.standard_normal((6, width)))
    edges = [(1, band.lowest_cosine), (-1, band.highest_cosine)]
    rows, known = [], []
    for number, query in enumerate(queries):
        for _ in range(8):
            for sign, cosine in edges:
                row = at_cosine(query, cosine, random)
                for place, vector in enumerate(astride(np.float16(sign) * query, row, sign * cosine)):
                    measured = query.astype(np.float64) @ vector.astype(np.float64)
                    rows.append(vector)
                    known.append((number, place == 0, np.float32(measured) == np.float32(cosine)))
    images = np.concatenate([queries, np.stack(rows)])
    return pairs_of(images, unit(random.standard_normal(images.shape))), np.array(known)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("width", [40, 384])  # bounds that are the inner products, and bounds that lie far above
def test_one_step_of_float16_decides_on_which_side_of_an_edge_an_image_lies(
    metric: Metric, width: int, build: Build
) -> None:
    pairs, known = astride_the_edges(metric, width)
    assert known[:, 2].sum() > len(known) / 4, "float32 would have to tell most of them from the edge"
    queries = len(pairs) - len(known)
    found = assert_exact(build, pairs, Rule(Band(metric, 0.4, 0.6), len(pairs)), np.arange(queries))
    for query in range(queries):
        asked = known[:, 0] == query
        belong = queries + np.flatnonzero(asked & (known[:, 1] == 1))
        planted = set(queries + np.flatnonzero(asked))
        assert planted & set(listed(found, query)) == set(belong)


@pytest.mark.parametrize("metric", METRICS)
def test_better_captions_a_step_outside_the_band_keep_no_candidate_out(metric: Metric, build: Build) -> None:
    pairs, known = astride_the_edges(metric, 384)
    queries = len(pairs) - len(known)
    captions = np.zeros_like(pairs.captions)
    captions[:, 0] = 1
    captions[queries:, 0] = 0.9 - 0.5 * known[:, 1]
    found = assert_exact(build, pairs_of(pairs.images, captions), Rule(Band(metric, 0.4, 0.6), 4), np.arange(queries))
    assert (known[found.rows - queries, 1] == 1).all()


def test_the_edges_are_as_sharp_for_a_thousand_queries_that_know_k_supports_already(build: Build) -> None:
    pairs, known = astride_the_edges("l2", 384)
    queries = len(pairs) - len(known)
    images, captions = np.tile(pairs.images, (2, 1)), np.zeros((2 * len(pairs), 384), np.float16)
    captions[:, 0] = 1
    captions[: len(pairs), 0] = 0.5
    again = pairs_of(images, captions, shard_rows=len(pairs))
    k = int((known[:, :2] == [0, 1]).all(axis=1).sum())
    found = assert_exact(build, again, Rule(Band("l2", 0.4, 0.6), k), np.arange(1100) % queries)
    assert (found.rows >= len(pairs) + queries).all()


@pytest.mark.parametrize(
    ("band", "lowest", "highest"),
    [
        (Band("l2", 0.5, 1), 0.5, 0.875),
        (Band("l2_squared", 0.5, 1), 0.5, 0.75),
        (Band("cosine", 0.25, 0.5), 0.5, 0.75),
        (Band("cosine", 1, 1.5), -0.5, 0),
        (Band("l2", 1, 2), -1, 0.5),
    ],
)
def test_an_image_on_a_bound_is_in_the_band(band: Band, lowest: float, highest: float, build: Build) -> None:
    edges = np.array([lowest, highest], np.float16)
    cosines = np.concatenate([np.nextafter(edges, -2), edges, np.nextafter(edges, 2)], dtype=np.float16)
    images = np.zeros((7, 3), np.float16)
    images[:, 0] = [1, *cosines]
    found = assert_exact(build, pairs_of(images, np.ones_like(images)), Rule(band, 9), np.array([0]))
    assert listed(found, 0) == [2, 3, 4, 5]  # the highest one less a step, both bounds, the lowest one and a step


def test_copies_of_an_image_are_told_by_their_stored_norm_where_the_band_begins_at_0(build: Build) -> None:
    """A distance is read through the cosine of vectors as they are stored: rounded up, one is too near to itself."""
    images = unit(np.random.default_rng(3).standard_normal((200, 384)))
    squared = np.einsum("nd,nd->n", *[images.astype(np.float64)] * 2)
    assert 50 < (squared > 1).sum() < 150
    pairs = pairs_of(np.repeat(images, 2, axis=0), np.ones((400, 384), np.float16))
    found = assert_exact(build, pairs, Rule(Band("l2", 0, 0.5), 4))
    for query in range(400):
        assert listed(found, query) == ([] if squared[query // 2] > 1 else [query ^ 1])


# ── which captions are the most similar ──


def in_band(rows: int, width: int, random: np.random.Generator) -> Half:
    """Images of which most pairs lie in EVERY_COSINE, and many in the band of l2 from 0.4 to 0.6."""
    center = random.standard_normal(width)
    return unit(center + 0.4 * random.standard_normal((rows, width)))


@pytest.mark.parametrize("k", [1, 4, 50])
def test_of_thousands_of_equal_captions_the_smallest_rows_are_taken(k: int, build: Build) -> None:
    random, rows = np.random.default_rng(4), 12_000
    captions = unit(random.standard_normal((rows, 24)))
    repeated = np.sort(random.choice(rows, 4000, replace=False))
    captions[repeated] = captions[repeated[0]]
    pairs = pairs_of(in_band(rows, 24, random), captions)
    asking = repeated[-300:]
    found = assert_exact(build, pairs, Rule(Band("l2", 0.4, 0.6), k), asking)
    assert np.isin(found.rows, repeated).all()
    assert (np.diff(found.rows, axis=1) > 0).all()


@pytest.mark.parametrize("k", [3, 60])
def test_ties_across_tiles_and_beyond_the_last_support(k: int, build: Build) -> None:
    """Captions of ten values, images of a hundred: every place is shared by hundreds of rows of every tile."""
    random, rows = np.random.default_rng(5), 9500
    images, captions = in_band(100, 16, random), unit(random.standard_normal((10, 16)))
    pairs = pairs_of(images[random.integers(100, size=rows)], captions[random.integers(10, size=rows)])
    assert_exact(build, pairs, Rule(Band("l2", 0.4, 0.6), k), np.arange(0, rows, 211))


@pytest.mark.parametrize("order", ["rising", "falling", "drawn"])
@pytest.mark.parametrize("step", [2**-40, 2**-48])
def test_captions_that_float32_cannot_tell_apart_are_ranked(step: float, order: str, build: Build) -> None:
    random, rows = np.random.default_rng(6), 2500
    place = {"rising": np.arange(rows), "falling": np.arange(rows)[::-1], "drawn": random.permutation(rows)}[order]
    captions = np.zeros((rows + 1, 8), np.float16)
    captions[:, :3] = 0.5
    captions[0, 3] = step * 2**24
    captions[1:, 3] = place * 2**-24  # a step of the smallest float16 each
    pairs = pairs_of(in_band(rows + 1, 8, random), captions)
    found = assert_exact(build, pairs, Rule(EVERY_COSINE, 5), np.array([0]))
    assert found.caption_cosines[0].tolist() == sorted(found.caption_cosines[0], reverse=True)
    assert 0 < found.caption_cosines[0, 0] - found.caption_cosines[0, -1] < 100 * step


@pytest.mark.parametrize("k", [1, 4, 60])
def test_captions_that_are_equal_and_that_float32_tells_apart_are_ties(k: int, build: Build) -> None:
    """The same values in another order have the same sum, and another one in float32."""
    random, rows = np.random.default_rng(13), 3000
    captions = random.permuted(np.tile(unit(random.random((1, 384))), (rows, 1)), axis=1)
    captions[0] = 0.05
    single = captions[1:].astype(np.float32) @ captions[0].astype(np.float32)
    assert len(np.unique(single)) > 2
    images = (0.99 * in_band(rows, 384, random).astype(np.float64)).astype(np.float16)
    found = assert_exact(build, pairs_of(images, captions), Rule(EVERY_COSINE, k), np.array([0]))
    assert listed(found, 0) == [*range(1, k + 1)]


def test_a_caption_that_is_better_by_less_than_float32_tells_takes_the_place_of_one_of_an_earlier_tile(
    build: Build,
) -> None:
    random, rows = np.random.default_rng(14), 700
    captions = random.permuted(np.tile(unit(random.random((1, 384))), (rows, 1)), axis=1)
    captions[0] = 0.05
    captions[1:, 0] = np.arange(1, rows) * 2**-24
    captions[1:, 1:] = random.permuted(np.tile(captions[1, 1:], (rows - 1, 1)), axis=1)
    images = (0.99 * in_band(rows, 384, random).astype(np.float64)).astype(np.float16)
    found = assert_exact(build, pairs_of(images, captions, shard_rows=7), Rule(EVERY_COSINE, 4), np.array([0]))
    assert listed(found, 0) == [699, 698, 697, 696]


# ── who is no candidate ──


SAME = np.arange(100, 109, dtype=np.uint64)  # what no two of these rows share


@pytest.mark.parametrize(
    ("rule", "value", "asked", "dropped"),
    [
        ("pair", 1, 1, [3, 4, 5]),
        ("image_id", 1, 1, [3, 4, 5]),
        ("image_id", NONE, NONE, []),  # no image_id is equal to nothing
        ("image_id", FAR_HASH, FAR_HASH, [3, 4, 5]),
        ("sha256", 1, 1, [3, 4, 5]),
        ("phash", 1, 1, [4]),  # only where the cosine agrees
        ("phash", 0, 0, [4]),  # that of a flat picture, and a hash as any other
        ("phash", FAR_HASH, FAR_HASH, [4]),
        ("phash", FAR_HASH, 7, []),
        ("caption", 1, 1, [3, 4, 5]),
    ],
)
def test_a_pair_that_gives_the_query_away_is_no_support(
    rule: str, value: int, asked: int, dropped: list[int], build: Build
) -> None:
    random = np.random.default_rng(7)
    query = unit(random.standard_normal((1, 64)))[0]
    alike, unlike = astride(query, at_cosine(query, SAME_PHASH, random), SAME_PHASH)
    far = [at_cosine(query, cosine, random) for cosine in (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)]
    images = np.stack([query, *far[:2], far[2], alike, unlike, *far[3:]])
    hashes = SAME.copy()
    hashes[[0, 3, 4, 5]] = [asked, value, value, value]
    pairs = pairs_of(images, np.ones_like(images), hashes={rule: hashes})
    for own_caption in (False, True):
        found = assert_exact(build, pairs, Rule(Band("cosine", 0.01, 0.5), 9, own_caption), np.array([0]))
        kept = rule == "caption" and own_caption
        assert listed(found, 0) == [row for row in range(1, 9) if kept or row not in dropped]


def test_a_query_is_told_by_its_id_and_its_copies_are_candidates(build: Build) -> None:
    random = np.random.default_rng(8)
    images, captions = (np.tile(0.999 * unit(random.standard_normal((30, 48))), (3, 1)) for _ in range(2))
    pairs = pairs_of(images.astype(np.float16), captions.astype(np.float16))
    found = assert_exact(build, pairs, Rule(Band("l2", 0, 0.5), 5))
    for query in range(90):
        assert listed(found, query) == [row for row in range(query % 30, 90, 30) if row != query]


# ── how many there are ──


def test_a_starved_query_gets_what_there_is_and_then_nothing(build: Build) -> None:
    images = np.zeros((40, 20), np.float16)
    images[np.arange(40), np.arange(40) // 2] = 1
    images[1] = 0
    images[1, :2] = 0.75, 0.66  # the only row in a band: those of 0, 2 and 3 hold it, and it holds 0
    found = assert_exact(build, pairs_of(images, images), Rule(Band("cosine", 0.2, 0.3), 4))
    assert found.found.tolist() == [1, 1] + [0] * 38
    assert (found.rows[:, 1:] == -1).all()
    assert np.isneginf(found.caption_cosines[:, 1:]).all()
    assert np.isneginf(found.image_cosines[:, 1:]).all()


def test_a_band_may_hold_the_whole_corpus(build: Build) -> None:
    random = np.random.default_rng(9)
    images, captions = (
        (0.99 * unit(random.standard_normal((1300, 40))).astype(np.float64)).astype(np.float16) for _ in range(2)
    )
    found = assert_exact(build, pairs_of(images, captions), Rule(EVERY_COSINE, 1299), np.arange(0, 1300, 130))
    assert (found.found == 1299).all()


@pytest.mark.parametrize("rows", [1, 2, 3, 1023, 1025])
@pytest.mark.parametrize("shard_rows", [1, 333, 10_000])
def test_few_rows_and_tiles_of_any_size(rows: int, shard_rows: int, build: Build) -> None:
    random = np.random.default_rng(rows)
    images, captions = in_band(rows, 8, random), unit(random.standard_normal((rows, 8)))
    wanted = random.random(rows) < 0.7
    wanted[rows // 2] = True
    pairs = pairs_of(images, captions, wanted=wanted, shard_rows=shard_rows)
    assert_exact(build, pairs, Rule(EVERY_COSINE, 7), np.arange(0, rows, 5))


@pytest.mark.parametrize("width", [1, 8, 61, 100, 384, 512])
def test_any_width_and_more_queries_than_are_asked_at_once(width: int, build: Build) -> None:
    random = np.random.default_rng(width)
    pairs = pairs_of(in_band(1300, width, random), unit(random.standard_normal((1300, width))), shard_rows=700)
    found = assert_exact(build, pairs, Rule(Band("l2", 0.4, 0.6), 4), np.arange(1100))
    assert width < 8 or found.found.sum() > 1000


# ── vectors of any kind ──


def drawn(kind: str, random: np.random.Generator, rows: int, width: int) -> Half:
    """Vectors that a bound may stumble over."""
    vectors = in_band(rows, width, random).astype(np.float64)
    if kind == "equal":
        vectors[:] = vectors[0]
    elif kind == "opposite":
        vectors[1::2] = -vectors[:-1:2]
    elif kind == "around nothing":
        vectors = random.standard_normal(vectors.shape) / np.sqrt(width)
    elif kind == "rounded norms":
        vectors *= 1 + random.uniform(-2e-4, 2e-4, (rows, 1))
    elif kind == "long":
        vectors *= 3
    elif kind == "short":
        vectors *= 1e-3
    elif kind == "of any norm":
        vectors *= 10 ** random.uniform(-6, 0.4, (rows, 1))
    elif kind == "some nothing":
        vectors[random.random(rows) < 0.3] = 0
    elif kind == "few values":
        vectors = random.integers(-1, 2, vectors.shape) / np.sqrt(width)
    else:
        assert kind == "cone", kind
    return vectors.astype(np.float16)


KINDS = [
    "cone",
    "equal",
    "opposite",
    "around nothing",
    "rounded norms",
    "long",
    "short",
    "of any norm",
    "some nothing",
    "few values",
]
BANDS = [
    Band("l2", 0.4, 0.6),
    Band("l2_squared", 0.7, 1.9),
    Band("cosine", 0.4, 0.6),
    Band("cosine", 0.999, 1.5),
    Band("l2", 0, 2),
    Band("l2", 1.999, 2),
]


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_vectors_in_any_band(kind: str, build: Build) -> None:
    random = np.random.default_rng(KINDS.index(kind))
    images, captions = (drawn(kind, random, 400, 70) for _ in range(2))
    pairs = pairs_of(images, captions, shard_rows=170)
    for band in BANDS:
        assert_exact(build, pairs, Rule(band, 4), np.arange(0, 400, 3))


@pytest.mark.parametrize("lead", LEADS)
def test_the_axes_are_no_part_of_the_answer(lead: Lead) -> None:
    random = np.random.default_rng(10)
    pairs = pairs_of(in_band(1500, 96, random), unit(random.standard_normal((1500, 96))))
    rule, queries = Rule(Band("l2", 0.4, 0.6), 4), pairs.queries(np.arange(300))
    expected = brute_force(pairs, queries, rule)
    for norm in (0, 1, 5):
        basis = np.linalg.qr(random.standard_normal((96, 61)))[0]
        mean = norm * random.standard_normal(96) / np.sqrt(96)
        nonsense = Axes(mean, basis)
        assert_same(Sweep(pairs, rule, nonsense, nonsense, lead).mine(queries), expected)


def test_fewer_and_fewer_pairs_come_to_each_step_of_a_sweep() -> None:
    random = np.random.default_rng(11)
    pairs = pairs_of(in_band(1500, 96, random), unit(random.standard_normal((1500, 96))), shard_rows=1100)
    queries, rule = pairs.queries(np.arange(300)), Rule(Band("l2", 0.4, 0.6), 4)
    for lead in LEADS:
        sweep = swept(lead, pairs, rule)
        (supports, passed), (_, again) = sweep.count(queries), sweep.count(queries)
        assert passed[0] == 300 * 1500
        assert (np.diff(passed) <= 0).all()
        assert passed[-1] >= supports.found.sum()
        np.testing.assert_array_equal(passed, again)


class Unreadable(InMemory):
    def tiles(self, size: int) -> Iterator[Tile]:
        raise AssertionError("rows are read for no query")


def test_nothing_is_read_for_a_task_without_queries(build: Build) -> None:
    vectors = unit(np.random.default_rng(12).standard_normal((20, 16)))
    pairs = Unreadable(**vars(pairs_of(vectors, vectors)))
    found = build(pairs, Rule(Band("l2", 0.4, 0.6), 4)).mine(pairs.queries(np.arange(0)))
    assert found.rows.shape == (0, 4)


few_hashes = st.sampled_from([(0, 1), (0, 1, 2, FAR_HASH, 2**64 - 1), tuple(range(500))])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 400),
    width=st.integers(1, 80),
    k=st.integers(1, 60),
    shard_rows=st.integers(1, 500),
    distinct=st.sampled_from([1, 2, 30, 10_000]),
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    band=st.sampled_from(BANDS),
    own_caption=st.booleans(),
    taking_part=st.sampled_from([1, 0.5]),
    hashes=st.dictionaries(st.sampled_from(["image_id", "sha256", "phash", "caption"]), few_hashes),
)
def test_whatever_the_pairs_and_however_queries_and_rows_are_cut(
    seed: int,
    rows: int,
    width: int,
    k: int,
    shard_rows: int,
    distinct: int,
    kinds: tuple[str, str],
    band: Band,
    own_caption: bool,
    taking_part: float,
    hashes: dict[str, Any],
) -> None:
    random = np.random.default_rng(seed)
    images, captions = (
        drawn(kind, random, min(distinct, rows), width)[random.integers(min(distinct, rows), size=rows)]
        for kind in kinds
    )
    wanted = random.random(rows) < taking_part
    wanted[rows // 2] = True
    columns = {rule: random.choice(np.array(values, np.uint64), rows) for rule, values in hashes.items()}
    pairs = pairs_of(images, captions, wanted=wanted, shard_rows=shard_rows, hashes=columns)
    rule, queries = Rule(band, k, own_caption), pairs.queries(np.arange(0, rows, 3))
    cut = int(random.integers(len(queries) + 1))
    expected = brute_force(pairs, queries, rule)
    for engine in (build(pairs, rule) for name, build in ENGINES.items() if usable(name)):
        assert_same(engine.mine(queries), expected)
        parts = [engine.mine(queries.part(part)) for part in (slice(0, cut), slice(cut, None))]
        joined = [np.concatenate([getattr(part, column) for part in parts]) for column in COLUMNS]
        assert_same(Supports(*joined), expected)


# ── real vectors ──


def assert_exact_by_every_reading(pairs: InMemory) -> None:
    """As they lie and permuted, by every engine there is."""
    every = np.arange(len(pairs))
    order = np.random.default_rng(12).permutation(every)
    for metric in METRICS:
        rule, similarities = Rule(Band(metric, 0.4, 0.6), 4), []
        for arranged in (pairs, pairs.permuted(order)):
            queries = arranged.queries(every)
            expected = brute_force(arranged, queries, rule)
            similarities.append(expected.caption_cosines)
            for name in filter(usable, ENGINES):
                assert_same(ENGINES[name](arranged, rule).mine(queries), expected)
        assert np.isfinite(similarities[0]).any()
        np.testing.assert_array_equal(similarities[1], similarities[0][order])


def test_real_sentences(real_data: Path) -> None:
    assert_exact_by_every_reading(sentence_pairs(real_data, 1000))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_real_sentences(real_data: Path) -> None:
    assert_exact_by_every_reading(sentence_pairs(real_data, 20_000))
