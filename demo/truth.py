"""How a run on the demo's corpus compares with the truth about every row: what its scores tell apart, and whether rows
left for the reason that they should."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.commits import Whole
from pipeline.errors import InputError
from stages.report import rejects

PAIR_ID = pl.format("{}-{}", "source", pl.col("row").cast(pl.String).str.zfill(10)).alias("pair_id")


def score_separation(root: str, truth: Path) -> float:
    """The probability that a pair with a true caption has a higher clip_score than one whose caption tells of another
    scene (AUC; ties count half). Pairs with a fault of another kind, which the truth gives a reason, are left out.

    Raises InputError where the run has scored no pair of one of the two sorts.
    """
    scored = pl.DataFrame(Whole.open(root, "embed").tables("pairs", ["pair_id", "clip_score"]))
    rows = scored.join(_truth(truth).filter(pl.col("reason").is_null()), on="pair_id")
    matched, mismatched = (
        rows.filter(pl.col("mismatched") == is_so)["clip_score"].to_numpy() for is_so in (False, True)
    )
    if not (len(matched) and len(mismatched)):
        raise InputError(f"{root}/embed holds {len(matched)} matched and {len(mismatched)} mismatched pairs of {truth}")
    return auc(matched, mismatched)


def auc(higher: npt.NDArray[np.floating], lower: npt.NDArray[np.floating]) -> float:
    """Share of all pairs of a `higher` and a `lower` value in the right order, from their ranks (Mann and Whitney)."""
    _, place, count = np.unique(np.concatenate([higher, lower]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place[: len(higher)]]
    return float((ranks.mean() - (len(higher) + 1) / 2) / len(lower))


def expected_reasons_met(root: str, truth: Path) -> tuple[int, int]:
    """Of the rows that should leave for a known reason: how many left for exactly that one, and how many there are."""
    expected = _truth(truth).filter(pl.col("reason").is_not_null())
    met = expected.join(rejects(root), on=["pair_id", "reason"], how="semi")
    return len(met), len(expected)


def _truth(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path).with_columns(PAIR_ID)
