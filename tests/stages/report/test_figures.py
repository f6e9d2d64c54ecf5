"""Quantiles, histogram and recall are the figures that the slow, obvious way gives."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stages.filter import FilterRecipe
from stages.report import tables
from stages.report.quantiles import PERCENTS
from stages.report.root import RunRoot
from stages.report.scores import BINS, histogram, meaning, thresholds
from tests.stages.filter.making import Made, filtered, in_shards
from tests.stages.report.roots import make_pairs


def test_quantiles_are_numpys(root: str, pairs: list[Made]) -> None:
    stored, scored = [p for p in pairs if p.downloaded], [p for p in pairs if p.reason is None]
    expected: dict[str, Sequence[float]] = {
        "clip_score": [pair.clip_score for pair in scored],
        "short side as fetched": [min(pair.size) for pair in stored],
        "short side as stored": [min(pair.size) // 2 for pair in stored],
        "picture as stored": [len(pair.picture.jpeg) for pair in stored],
    }
    found = tables(root)["quantiles"]
    assert found["measure"].to_list() == list(expected)  # nothing was fetched, so latencies are not there
    for (_, _, num, *values), of in zip(found.iter_rows(), expected.values(), strict=True):
        assert num == len(of)
        np.testing.assert_allclose(values, np.percentile(of, PERCENTS), rtol=1e-6)


def test_the_histogram_is_numpys(root: str, pairs: list[Made]) -> None:
    found = histogram(RunRoot(root))
    for source in ("cc3m", "a-b_2"):
        own = [pair.clip_score for pair in pairs if pair.source == source and pair.reason is None]
        counted = np.zeros(BINS, int)
        for _, place, rows in found.filter(source=source).iter_rows():
            counted[place] = rows
        np.testing.assert_array_equal(counted, np.histogram(np.float32(np.array(own)), BINS, (-1, 1))[0])


@pytest.mark.parametrize(
    ("recipe", "limits", "told"),
    [
        ({}, {"a-b_2": 0.28, "cc3m": 0.28}, "left of the line"),
        ({"sources": {"cc3m": {"min_clip_score": None}}}, {"a-b_2": 0.28, "cc3m": None}, "Of cc3m any score"),
        ({"defaults": {"min_clip_score": None}}, {"a-b_2": None, "cc3m": None}, "null for every source"),
    ],
)
def test_thresholds_are_those_that_judged(
    tmp_path: Path, recipe: dict[str, object], limits: dict[str, float | None], told: str
) -> None:
    root = filtered(tmp_path, FilterRecipe.model_validate(recipe), in_shards(make_pairs(), 20))
    assert thresholds(RunRoot(root)) == limits
    assert told in meaning(limits)


def test_recall_is_told_at_the_chosen_point_with_and_without_re_ranking(root: str) -> None:
    (path,) = Path(root, "index_report").glob("data/tuned_*.json")
    chosen = json.loads(path.read_text())["chosen"]
    found = tables(root)["recall"]
    for direction in ("image", "text"):
        rows = found.filter(direction=direction)
        assert rows.select("k", "depth").rows() == [
            (k, depth) for k in (1, 2, 4, 10) for depth in (None, chosen[direction]["depth"])
        ]
        assert set(rows["nprobe"]) == {chosen[direction]["nprobe"]}
    assert ((found["low"] <= found["recall"]) & (found["recall"] <= found["high"])).all()
