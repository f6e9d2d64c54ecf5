"""What mining is measured with: the pairs that are drawn, and the rivals' answers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.interleave.axes import Axes
from stages.interleave.band import Band
from stages.interleave.supports import Rule, Supports
from stages.interleave.sweep import Sweep
from trials.benchmarks.interleave_costs import fitted
from trials.benchmarks.interleave_gpu import on_gpu
from trials.benchmarks.interleave_rivals import Ranged, Rival, Tiled, brute_force, differences
from trials.benchmarks.interleave_speed import Case, alone, compare
from trials.benchmarks.interleave_vectors import BLOCK, SHAPES, PairSet, Shape, Statistics

ROOT = Path(__file__).parents[2]
ROWS = 3000
SHAPE = Shape(topics=30, decay=1.05, topics_agree=0.885)
RULE = Rule(Band("l2", 0.4, 0.6), 4)
IDS = np.arange(0, ROWS, 7)


@pytest.fixture(scope="module")
def some() -> PairSet:
    return PairSet.drawn(ROWS, SHAPE)


@pytest.fixture(scope="module")
def exact(some: PairSet) -> Supports:
    return brute_force(some, IDS, RULE)


def test_a_block_is_the_same_whichever_rows_are_asked_for() -> None:
    whole = [*SHAPE.blocks(BLOCK + 100, width=8)]
    (images, captions), *rest = SHAPE.blocks(BLOCK + 100, width=8, first=BLOCK)
    assert rest == []
    assert np.array_equal(whole[1], (images, captions))
    assert len(images) == 100


def test_pairs_have_clips_statistics_and_the_stated_correlation() -> None:
    some = PairSet.drawn(8000, SHAPES[0.001])
    norms = [np.linalg.norm(side.astype(np.float32), axis=1) for side in (some.images, some.captions)]
    assert np.abs(np.stack(norms) - 1).max() < 1e-3
    told = Statistics.of(some, RULE.band, RULE.k)
    assert told.cone == pytest.approx(0.5, abs=0.02)
    assert told.spread == pytest.approx(0.1, abs=0.02)
    assert told.correlation == pytest.approx(0.48, abs=0.04)
    assert told.density == pytest.approx(0.001, rel=0.2)


def test_brute_force_finds_what_a_plain_loop_finds(some: PairSet, exact: Supports) -> None:
    images, captions = some.images.astype(np.float64), some.captions.astype(np.float64)
    for number in range(0, len(IDS), 20):
        query = IDS[number]
        near, alike = images @ images[query], captions @ captions[query]
        inside = [row for row in range(ROWS) if row != query and 0.82 <= near[row] <= 0.92]
        best = sorted(inside, key=lambda row: (-alike[row], row))[: RULE.k]
        assert exact.rows[number, : len(best)].tolist() == best
        assert exact.image_cosines[number, : len(best)].tolist() == [near[row] for row in best]


@pytest.mark.parametrize("factory", [None, "Flat"])
def test_a_rival_finds_the_exact_supports_but_for_rounding(some: PairSet, exact: Supports, factory: str | None) -> None:
    rival: Rival = Tiled(some, RULE) if factory is None else Ranged(some, RULE, factory)
    rows = rival.rows(IDS)
    assert (rows == -1).any()  # some starve, and no filler is left in their lists
    assert differences(some, IDS, rows, exact, RULE.band).others == 0
    assert (rows == exact.rows).all(axis=1).mean() > 0.99


def test_mining_finds_them_too(some: PairSet, exact: Supports) -> None:
    sweep = Sweep(some.pairs, RULE, Axes.of(some.images), Axes.of(some.captions), "image")
    found = sweep.mine(some.pairs.queries(IDS))
    assert all(map(np.array_equal, vars(found).values(), vars(exact).values()))


def test_an_inverted_file_is_given_as_many_lists_as_it_needs(some: PairSet) -> None:
    flat, lists = Ranged(some, RULE, "Flat"), Ranged(some, RULE, "IVF32,Flat")
    lists.probe(0.9999, flat, IDS)
    enough = lists.index.nprobe
    assert lists.in_band(IDS) >= 0.9999 * flat.in_band(IDS)
    lists.index.nprobe = enough - 1
    assert lists.in_band(IDS) < 0.9999 * flat.in_band(IDS)


def test_differences_are_told_apart() -> None:
    """One query, whose band ends at cosine 0.75, and captions that differ from it by ever more."""
    images = np.zeros((6, 4), np.float16)
    images[:, 0] = [1, 0.75, 0.75, 0.75, 0.5, 0.5]
    captions = np.zeros((6, 4), np.float16)
    captions[:, 0] = [1, 0.9, 0.9, 0.8, 1, 1]
    band, some = Band("cosine", 0.25, 0.4), PairSet(images, captions)
    exact = brute_force(some, np.array([0]), Rule(band, 2))
    assert exact.rows.tolist() == [[1, 2]]

    def told(*rows: int, within: Band = band) -> str:
        return str(differences(some, np.array([0]), np.array([rows]), exact, within))

    assert told(1, 2) == "none"
    assert told(2, 1, within=Band("cosine", 0.1, 0.4)) == "1 by ties"
    assert told(1, 3) == "1 by edges"
    assert told(1, 3, within=Band("cosine", 0.1, 0.4)) == "1 by others"


def test_costs_are_fitted_and_never_negative() -> None:
    random = np.random.default_rng(0)
    shares = random.random((40, 3)) * [1, 0.1, 0.01]
    assert fitted(shares, shares @ [2.0, 30.0, 400.0]) == pytest.approx([2, 30, 400])
    assert (fitted(shares, shares @ [2.0, 30.0, -40.0]) >= 0).all()


def test_pairs_whose_queries_starve_are_no_measurement() -> None:
    lines = dict(compare(Case(1500, 0.0003, sampled=64, block=64, repetitions=1)))
    assert [what.split(": ")[1] for what in lines] == ["the pairs", "no measurement of speed"]


def test_every_target_is_named_beside_its_ratio() -> None:
    case = Case(4000, 0.01, sampled=64, block=256, factories=("Flat", "IVF16,Flat"), repetitions=1)
    lines = {what.removeprefix(f"{case}: "): figure for what, figure in [*compare(case), *alone(case)]}
    for ratio, target in {
        "ratio of tiled products to ours": "≥ 2.5",
        "ratio of FAISS Flat to ours": "≥ 3, goal 6",
        "ratio of FAISS IVF16,Flat to ours": "> 1",
        "torch.mm as a share of bounds and comparison": "≥ 60%",
        "torch.mm as a share of the whole sweep": "≥ 60%",
    }.items():
        assert f"(target {target})" in lines[ratio]


def test_all_products_are_timed_on_a_device_that_is_there() -> None:
    lines = dict(on_gpu([2000], 0.01, device="cpu", products=1))
    assert len(lines) == 3


PART = """
from trials.benchmarks.interleave import Sizes, interleave

small = Sizes({4000: 64}, 4000, 256, ("Flat",), 1, 2000, (2000, 4000), ())
for what, figure in interleave(small):
    print(what, figure)
"""


@pytest.mark.slow
def test_the_part_runs_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", PART], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "STEP_NS" in ended.stdout
    assert "own memory" in ended.stdout
    assert list(tmp_path.iterdir()) == []
