"""Of rows with one place and caption, the first one stays, whichever lists they are in.

Reads   ingest_keys
Writes  dropped: positions (int64, ascending) of the rows to leave out; a shard an equal part of the hashes' range
Rejects nothing: ingest_rows does
Memory  A shard is worked through in spans of about span_rows keys, so it does not grow with the lists. Of a row that
        stands very often, as many are held at once as one shard of ingest_keys has, and 8 bytes for each to drop.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.commits import Whole
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.ingest.keys import KeyRows, Keys, repeats, sorted_keys

HASHES = 1 << 64  # values of the half of a hash that keys are split by
NO_KEYS: KeyRows = np.empty((0, 3), np.uint64)
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates(Stage[None]):
    shard_rows: int = 1_000_000  # on average, as long as that makes no more than MAX_SHARDS
    span_rows: int = 250_000

    name: ClassVar[str] = "ingest_duplicates"
    version: ClassVar[int] = 1
    MAX_SHARDS: ClassVar[int] = 64  # every shard of ingest_rows looks into each of them

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input(Keys.name, Need.WHOLE),)

    def settings(self) -> Mapping[str, Json]:
        return {"shard_rows": self.shard_rows}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        shards = min(self.MAX_SHARDS, max(1, -(-whole[Keys.name].rows // self.shard_rows)))
        return Plan([Shard(shard_id(n), {"number": n}) for n in range(shards)], {"shards": shards})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        keys, shards, number = task.whole(Keys.name), task.resolved["shards"], task.params["number"]
        spans = max(1, -(-keys.rows // (shards * self.span_rows)))
        edges = [HASHES * n // (shards * spans) for n in range(number * spans, (number + 1) * spans + 1)]
        rows, dropped = 0, [NO_KEYS[:, 2]]
        for span in _spans([keys.read(shard).path("keys") for shard in keys.shards], edges):
            found, repeated = _repeated(span)
            rows += found
            dropped += repeated
        positions = np.sort(np.concatenate(dropped)).astype(np.int64)
        out.array("dropped", "{stem}.npy", positions)
        return Counts(rows, rows, {"dropped": len(positions)})


def dropped_rows(duplicates: Whole, first: int, rows: int) -> set[int]:
    """Of so many rows from a position on, which to leave out, counted from the first."""
    found: set[int] = set()
    for positions in _all_dropped(duplicates.folder.root, duplicates.identity):
        start, stop = np.searchsorted(positions, [first, first + rows])
        found.update((positions[start:stop] - first).tolist())
    return found


@lru_cache(maxsize=1)
def _all_dropped(root: str, identity: str) -> list[Positions]:
    """Mapped, and kept from one shard of ingest_rows to the next: on an object store opening them takes seconds."""
    duplicates = Whole.open(root, Duplicates.name)
    return [duplicates.read(shard).array("dropped") for shard in duplicates.shards]


def _spans(paths: Sequence[Path], edges: Sequence[int]) -> Iterator[Iterator[KeyRows]]:
    """Between every two edges, the keys of each file. A file is mapped for one span only: what stays mapped counts."""
    bounds = [_bounds(np.load(path, mmap_mode="r"), edges) for path in paths]
    for span in range(len(edges) - 1):
        ranges = ((path, rows[span], rows[span + 1]) for path, rows in zip(paths, bounds, strict=True))
        yield (np.array(np.load(path, mmap_mode="r")[start:stop]) for path, start, stop in ranges if start < stop)


def _bounds(keys: KeyRows, edges: Sequence[int]) -> list[int]:
    """The first row of each edge."""
    below = [edge for edge in edges if edge < HASHES]
    found = np.searchsorted(keys[:, 0], np.array(below, np.uint64)).tolist()
    return [*found, *[len(keys)] * (len(edges) - len(below))]


def _repeated(span: Iterable[KeyRows]) -> tuple[int, list[npt.NDArray[np.uint64]]]:
    """How many rows, and positions of those to drop. Of every file at first those that it holds twice itself, so that
    few of one hash meet. Files follow one another as the lists do, so the first of a hash is the earliest row."""
    rows, firsts, dropped = 0, [NO_KEYS], []
    for keys in span:
        again = repeats(keys)
        rows += len(keys)
        firsts.append(keys[~again])
        dropped.append(keys[again, 2])
    together = sorted_keys(np.concatenate(firsts))
    return rows, [*dropped, together[repeats(together), 2]]
