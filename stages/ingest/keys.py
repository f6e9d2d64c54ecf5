"""What makes two rows the same, of every row that passes the checks: a hash of the picture's place and the caption.

Reads   the files of the recipe's sources from the marks of ingest_count; a shard at most shard_rows rows or a url shard
Writes  keys: (rows, 3) uint64, the 128 bits of the hash and the row's position over all lists, by hash, then position
Rejects nothing: ingest_rows does
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.commits import Whole
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.ingest.checks import stripped
from stages.ingest.count import Count
from stages.ingest.lists import ListFile
from stages.ingest.ranges import Lists, checked_rows, grouped, ranges_of, settings_of
from stages.ingest.recipe import IngestRecipe
from stages.ingest.records import Fault, Raw

KeyRows = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Keys(Stage[None]):
    recipe: IngestRecipe
    shard_rows: int = 1_000_000

    name: ClassVar[str] = "ingest_keys"
    version: ClassVar[int] = 1

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input(Count.name, Need.WHOLE),)

    @cached_property
    def lists(self) -> Lists:
        return Count(self.recipe).lists

    def settings(self) -> Mapping[str, Json]:
        return {"shard_rows": self.shard_rows, **settings_of(self.recipe, self.lists)}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        """Small lists share a shard, for ingest_duplicates opens each file of keys many times."""
        size = self.recipe.shard_size
        ranges = ranges_of(whole[Count.name], size, max(1, self.shard_rows // size))
        groups = grouped(((params, params["rows"]) for params in ranges), self.shard_rows)
        return Plan([Shard(shard_id(n), {"ranges": group}) for n, group in enumerate(groups)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        hashes, positions, rows = bytearray(), array("Q"), 0
        for params in task.params["ranges"]:
            _, file = self.lists[params["list"]]
            for position, row in enumerate(checked_rows(self.lists, params), params["position"]):
                if not isinstance(row, Fault):
                    hashes += _hash(file, row)
                    positions.append(position)
            rows += params["rows"]
        out.array("keys", "{stem}.npy", sorted_keys(_table(hashes, positions)))
        return Counts(rows, rows, {"keys": len(positions)})


def sorted_keys(keys: KeyRows) -> KeyRows:
    """By hash; rows of one hash stay in their order."""
    return keys[np.lexsort((keys[:, 1], keys[:, 0]))]


def repeats(keys: KeyRows) -> npt.NDArray[np.bool_]:
    """(rows,) of sorted keys, whether the one before has the same hash."""
    same = np.zeros(len(keys), np.bool_)
    same[1:] = (keys[1:, :2] == keys[:-1, :2]).all(axis=1)
    return same


def _table(hashes: bytearray, positions: "array[int]") -> KeyRows:
    halves = np.frombuffer(hashes, "<u8").reshape(-1, 2)
    return np.column_stack([halves, np.frombuffer(positions, np.uint64)])


def _hash(file: ListFile, row: Raw) -> bytes:
    """No place holds a NUL, so no two pairs of place and caption are the same bytes."""
    return blake2b(_place(file, row) + b"\0" + (row.caption or b""), digest_size=16).digest()


def _place(file: ListFile, row: Raw) -> bytes:
    """The url as it is stored, or where a local picture lies."""
    if row.offset is not None:
        return f"{file.paths[0]}\n{row.offset}".encode()
    if row.path is not None:
        return f"{file.folder}/{row.path.decode()}".encode()
    return stripped(row.url or b"").encode()
