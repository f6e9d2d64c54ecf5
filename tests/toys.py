"""Small stages for tests of the frame. They lie in a module of their own because Ray's workers import them."""

import math
import os
import secrets
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.commits import StageFolder, Whole
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task

ROWS = 5


@dataclass(frozen=True)
class Numbers(Stage[None]):
    """Writes ROWS numbers a shard, and rejects those that 7 divides."""

    shards: int
    start: int = 0
    rows: int = ROWS
    name, version = "numbers", 1

    def settings(self) -> Mapping[str, Json]:
        return {"start": self.start}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        shards = [Shard(shard_id(n), {"first": self.start + n * self.rows}) for n in range(self.shards)]
        return Plan(shards, {"rows": self.rows})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        found = range(task.params["first"], task.params["first"] + task.resolved["rows"])
        kept = [n for n in found if n % 7]
        for n in set(found) - set(kept):
            out.reject(f"n-{n:010d}", Reason.MALFORMED_ROW, "7 divides it")
        out.table("numbers", "{stem}.parquet", pa.table({"n": pa.array(kept, pa.int64())}))
        return Counts(len(found), len(kept))


@dataclass(frozen=True)
class Shared(Numbers):
    """Three at once share something."""

    sharing = True

    @property
    def resources(self) -> Resources:
        return Resources(cpus=0.1, workers=3)


@dataclass(frozen=True)
class Squares(Stage[int]):
    """Shard by shard; keeps a state, and may be told to misbehave at one shard as long as a file exists."""

    name, version, stateful = "squares", 1, True
    factor: int = 1
    bad_shard: str = ""
    fault: str = ""  # raise, die or lose
    while_exists: str = ""  # a path; "" is for ever
    cpus: float = 1

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input("numbers"),)

    @property
    def resources(self) -> Resources:
        return Resources(cpus=self.cpus)

    def settings(self) -> Mapping[str, Json]:
        return {"factor": self.factor}

    def pair_ids(self, task: Task) -> list[str]:
        return [f"n-{n:010d}" for n in task.read("numbers").table("numbers")["n"].to_pylist()]

    def open(self, task: Task) -> int:
        return self.factor

    def process(self, task: Task, out: ShardWriter, state: int) -> Counts:
        found = task.read("numbers").table("numbers")["n"].to_pylist()
        if task.id == self.bad_shard and (not self.while_exists or Path(self.while_exists).exists()):
            if self.fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "raise":
                raise ValueError(f"shard {task.id} is not to my taste")
            found = found[1:]
        out.table("squares", "squares/squares_{stem}.parquet", pa.table({"n": [state * n * n for n in found]}))
        rows_in = task.read("numbers").record.rows_out
        return Counts(rows_in, len(found), {"process": os.getpid()})


@dataclass(frozen=True)
class Roots(Stage[None]):
    """Behind Squares, shard by shard."""

    name, version = "roots", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input("squares"),)

    def settings(self) -> Mapping[str, Json]:
        return {}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        squares = task.read("squares").table("squares")["n"].to_pylist()
        out.table("roots", "{stem}.parquet", pa.table({"n": [math.isqrt(n) for n in squares]}))
        return Counts(len(squares), len(squares))


@dataclass(frozen=True)
class Crawled(Numbers):
    """Numbers that come out differently each time they are made, as what is crawled does."""

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        out.json("crawled", "crawled_{stem}.json", secrets.token_hex())
        return super().process(task, out, state)


@dataclass(frozen=True)
class Deadly(Numbers):
    """Kills its process at one shard. It keeps no state, so on Ray that is a task's."""

    bad_shard: str = ""

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        if task.id == self.bad_shard:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().process(task, out, state)


@dataclass(frozen=True)
class Total(Stage[None]):
    """One shard over the whole of its input."""

    reads: str = "squares"
    name, version = "total", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input(self.reads, Need.WHOLE),)

    def settings(self) -> Mapping[str, Json]:
        return {}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(0), {"rows": whole[self.reads].rows})])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        table = task.whole(self.reads).tables(self.reads)
        assert table.num_rows == task.params["rows"]
        out.json("total", "total_{stem}.json", sum(table["n"].to_pylist()))
        return Counts(table.num_rows, table.num_rows)


def toy_stages(shards: int = 6, cpus: float = 1) -> list[Stage[object]]:
    return [Numbers(shards), Squares(cpus=cpus), Total()]  # type: ignore[list-item]


def data_of(root: str, stage: str) -> dict[tuple[str, str], bytes]:
    """(shard, name) → the bytes of every data file that a record names, so without the names of attempts."""
    folder = StageFolder(root, stage)
    records = [folder.record(shard) for shard in sorted(folder.committed())]
    return {(r.shard, name): folder.store.read(file.path) for r in records for name, file in r.files.items()}


def everything_in(root: str, stages: Sequence[str] = ("numbers", "squares", "total")) -> dict[str, object]:
    """All data, and nothing of attempts, times and hosts: what a crash may not change."""
    return {stage: data_of(root, stage) for stage in stages}


def made_by(root: Path) -> set[float]:
    """The processes that made the squares."""
    folder = StageFolder(str(root), "squares")
    return {folder.record(shard).metrics["process"] for shard in folder.committed()}


def left_in(root: Path) -> dict[str, int]:
    """How many files lie in each folder: more than a quiet run leaves are rests of a dead attempt."""
    return dict(Counter(str(path.parent.relative_to(root)) for path in root.rglob("*") if path.is_file()))
