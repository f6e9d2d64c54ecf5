"""Three stages whose every byte is known beforehand: rows → marked → totals.

rows     ROWS numbered rows a shard; rejects malformed_row
marked   chained: a mark for each row; rejects low_clip_score
totals   needs all of marked: sums over groups of GROUP shards
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

import trials.faulty_store  # noqa: F401 - a worker that unpickles a stage can then open faulty:// roots
from pipeline.commits import Whole
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task

ROWS = 8
GROUP = 1000
READERS = 16
SMALL = Resources(memory_gib=0.25)
Numbers = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Judge = Callable[[Numbers], Mask]
TableOf = Callable[[Numbers], pa.Table]


def numbers_of(shard: str) -> Numbers:
    return np.arange(ROWS, dtype=np.int64) + int(shard) * ROWS


def pair_id(number: int) -> str:
    return f"rehearsal-{number:010d}"


def well_formed(numbers: Numbers) -> Mask:
    return np.asarray(numbers % 61 != 0)


def marks(numbers: Numbers) -> np.ndarray[Any, np.dtype[np.float64]]:
    """0…1, scattered by a multiplicative hash (Knuth's 2654435761)."""
    return numbers * 2654435761 % 2**32 / 2**32


def high_enough(numbers: Numbers) -> Mask:
    return marks(numbers) >= 0.03


def rows_table(numbers: Numbers) -> pa.Table:
    return pa.table({"pair_id": [pair_id(n) for n in numbers.tolist()], "n": numbers})


def marked_table(numbers: Numbers) -> pa.Table:
    return rows_table(numbers).append_column("mark", pa.array(marks(numbers)))


@dataclass(frozen=True)
class Rows(Stage[None]):
    shards: int
    name, version, resources = "rows", 1, SMALL

    def settings(self) -> Mapping[str, Json]:
        return {"shards": self.shards}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(n)) for n in range(self.shards)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        return _write(numbers_of(task.id), well_formed, rows_table, Reason.MALFORMED_ROW, out)


@dataclass(frozen=True)
class Marked(Stage[None]):
    name, version, resources = "marked", 1, SMALL
    inputs = (Input("rows"),)

    def settings(self) -> Mapping[str, Json]:
        return {}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        numbers = task.read("rows").table("rows", ["n"])["n"].to_numpy()
        return _write(numbers, high_enough, marked_table, Reason.LOW_CLIP_SCORE, out)


@dataclass(frozen=True)
class Totals(Stage[None]):
    name, version, resources = "totals", 1, SMALL
    inputs = (Input("marked", Need.WHOLE),)

    def settings(self) -> Mapping[str, Json]:
        return {"group": GROUP}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        shards = list(whole["marked"].shards)
        groups = [shards[start : start + GROUP] for start in range(0, len(shards), GROUP)]
        return Plan([Shard(shard_id(n), {"first": g[0], "shards": len(g)}) for n, g in enumerate(groups)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        marked, first = task.whole("marked"), int(task.params["first"])
        shards = [shard_id(n) for n in range(first, first + task.params["shards"])]
        with ThreadPoolExecutor(READERS) as pool:
            numbers = pa.concat_tables(pool.map(lambda shard: marked.read(shard).table("rows", ["n"]), shards))["n"]
        out.json("total", "{stem}.json", {"rows": len(numbers), "sum": sum(numbers.to_pylist())})
        return Counts(len(numbers), len(numbers))


def rehearsal_stages(shards: int) -> Sequence[Stage[None]]:
    return [Rows(shards), Marked(), Totals()]


def _write(numbers: Numbers, judge: Judge, table_of: TableOf, reason: Reason, out: ShardWriter) -> Counts:
    good = judge(numbers)
    for number in numbers[~good].tolist():
        out.reject(pair_id(number), reason)
    out.table("rows", "{stem}.parquet", table_of(numbers[good]))
    return Counts(len(numbers), int(good.sum()))
