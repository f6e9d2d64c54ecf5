"""What a rehearsed run must hold, from the shards' numbers alone.

The tables come from the pure functions of the stages: what a row is made into is taken from them, and everything that
the frame does with it is not.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.reasons import Reason
from pipeline.stage import shard_id
from trials.rehearsal.stages import (
    GROUP,
    ROWS,
    Numbers,
    high_enough,
    marked_table,
    numbers_of,
    pair_id,
    rows_table,
    well_formed,
)

STAGES = ("rows", "marked", "totals")


@dataclass(frozen=True)
class Expected:
    """One shard of a stage. rejects: (pair_id, reason), in the order of the rows."""

    name: str  # of its one data file
    data: bytes
    rows_in: int
    rows_out: int
    rejects: tuple[tuple[str, str], ...]

    @property
    def identity(self) -> str:
        return identity_of({self.name: hashlib.sha256(self.data).hexdigest()})

    @property
    def reasons(self) -> dict[str, int]:
        return dict(sorted(Counter(reason for _, reason in self.rejects).items()))


def identity_of(value: Mapping[str, str]) -> str:
    """sha256 of the JSON: of checksums by file's name, or of identities by shard."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def shards_of(stage: str, shards: int) -> list[str]:
    """shards: of the run."""
    return [shard_id(n) for n in range(-(-shards // GROUP) if stage == "totals" else shards)]


def expected_shard(stage: str, shard: str, shards: int) -> Expected:
    numbers = numbers_of(shard)
    good = numbers[well_formed(numbers)]
    high = good[high_enough(good)]
    match stage:
        case "rows":
            return _of_table(numbers, good, rows_table(good), Reason.MALFORMED_ROW)
        case "marked":
            return _of_table(good, high, marked_table(high), Reason.LOW_CLIP_SCORE)
    return _total(int(shard) * GROUP, min(shards, (int(shard) + 1) * GROUP))


def _of_table(numbers: Numbers, kept: Numbers, table: pa.Table, reason: Reason) -> Expected:
    written = io.BytesIO()
    pq.write_table(table, written, compression="zstd")
    rejects = tuple((pair_id(n), reason.value) for n in np.setdiff1d(numbers, kept).tolist())
    return Expected("rows", written.getvalue(), len(numbers), len(kept), rejects)


def _total(first: int, stop: int) -> Expected:
    numbers = np.arange(first * ROWS, stop * ROWS)
    good = numbers[well_formed(numbers)]
    high = good[high_enough(good)]
    text = json.dumps({"rows": len(high), "sum": int(high.sum())}, indent=1, sort_keys=True) + "\n"
    return Expected("total", text.encode(), len(high), len(high), ())
