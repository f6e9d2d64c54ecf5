"""How a run on the demo's corpus compares with the truth about every row: what its scores tell apart, and whether rows
left for the reason that they should."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.commits import Committed, Whole, resolve_folder
from pipeline.errors import InputError
from pipeline.schemas import REJECTS

REJECTING = ("ingest_rows", "download", "embed", "filter_judge", "filter_duplicates")
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
    met = expected.join(_rejects(root), on=["pair_id", "reason"], how="semi")
    return len(met), len(expected)


def _truth(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path).with_columns(PAIR_ID)


def _rejects(root: str) -> pl.DataFrame:
    """Schema REJECTS, of all stages that are whole."""
    folders = [resolve_folder(root, stage) for stage in REJECTING]
    wholes = [Whole.open(folder.root, folder.stage) for folder in folders if folder.manifest()]
    committed = [whole.read(shard) for whole in wholes for shard in whole.shards]
    return pl.DataFrame(pa.concat_tables([REJECTS.empty_table(), *(table for c in committed for table in _table(c))]))


def _table(committed: Committed) -> Iterator[pa.Table]:
    """One, or none where the shard rejected no row."""
    if committed.record.rejects_file:
        with committed.folder.store.open(committed.record.rejects_file.path) as file:
            yield pq.read_table(file)
