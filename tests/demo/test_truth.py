"""The demo's closing words: how well scores tell captions apart, and whether rows left for the right reason."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo.corpus import TRUTH
from demo.truth import auc, expected_reasons_met, score_separation
from pipeline.errors import InputError
from pipeline.reasons import Reason
from stages.filter import FilterRecipe
from tests.stages.filter.making import Made, crawl, filtered


@pytest.mark.parametrize("values", [2, 5, 1000])
def test_auc_is_the_share_of_pairs_in_the_right_order(values: int) -> None:
    rng = np.random.default_rng(values)
    higher, lower = rng.integers(0, values, 83) / values, rng.integers(0, values, 41) / (values + 1)
    order = np.sign(higher[:, None] - lower[None])
    assert auc(higher, lower) == pytest.approx(((order + 1) / 2).mean(), abs=1e-12)


def test_auc_of_perfect_order_and_of_equal_scores() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0, 1.0])) == 1
    assert auc(np.zeros(7), np.zeros(3)) == 0.5


def write_truth(path: Path, rows: list[tuple[str, int, Reason | None, bool]]) -> Path:
    """rows: source, row, expected reason, mismatched."""
    listed = [
        {"source": s, "row": n, "url": "u", "kind": "k", "caption": "c", "reason": reason, "mismatched": mismatched}
        for s, n, reason, mismatched in rows
    ]
    pq.write_table(pa.Table.from_pylist(listed, schema=TRUTH), path)
    return path


def made(source: str, row: int, **changes: object) -> Made:
    return Made(pair_id=f"{source}-{row:010d}", **changes)  # type: ignore[arg-type]


def test_scores_are_joined_to_the_truth_by_source_and_row(tmp_path: Path) -> None:
    truth = write_truth(
        tmp_path / "truth.parquet",
        [
            ("cc3m", 0, None, False),
            ("cc12m", 0, None, True),
            ("cc3m", 1, None, True),
            ("cc3m", 2, Reason.CAPTION_URL, False),  # its score means nothing
            ("cc3m", 3, None, True),  # not fetched
        ],
    )
    pairs = [
        made("cc3m", 0, clip_score=0.3),
        made("cc12m", 0, clip_score=0.1),
        made("cc3m", 1, clip_score=0.4),
        made("cc3m", 2, clip_score=0.0),
        made("cc3m", 3, clip_score=0.9, reason=Reason.DNS),
    ]
    assert score_separation(crawl(tmp_path / "run", [pairs[:2], pairs[2:]]), truth) == 0.5


def test_without_a_mismatched_pair_there_is_nothing_to_separate(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.parquet", [("cc3m", 0, None, False)])
    with pytest.raises(InputError, match="1 matched and 0 mismatched"):
        score_separation(crawl(tmp_path / "run", [[made("cc3m", 0)]]), truth)


def test_only_the_expected_reason_counts(tmp_path: Path) -> None:
    truth = write_truth(
        tmp_path / "truth.parquet",
        [
            ("cc3m", 0, Reason.DNS, False),
            ("cc3m", 1, Reason.DEADLINE, False),  # left for another reason
            ("cc3m", 2, Reason.SMALL_IMAGE, False),
            ("cc3m", 3, Reason.CAPTION_URL, False),  # did not leave
            ("cc3m", 4, None, False),
        ],
    )
    pairs = [
        made("cc3m", 0, reason=Reason.DNS),
        made("cc3m", 1, reason=Reason.DNS),
        made("cc3m", 2, size=(20, 20)),
        made("cc3m", 3),
        made("cc3m", 4, clip_score=0.0),
    ]
    root = filtered(tmp_path / "run", FilterRecipe(), [pairs])
    assert expected_reasons_met(root, truth) == (2, 4)
    assert pl.read_parquet(truth).height == 5
