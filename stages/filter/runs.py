"""The order of the corpus: inputs as the recipe lists them, then pair_id, had without sorting a row.

A run is the rows of one source in one judge shard. Pair ids ascend in it, because lists are read in order, so it is
enough to order the runs by their first pair_id.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import Whole
from pipeline.errors import InputError

READERS = 16  # judge shards read at once; one after the other, 75,000 on an object store would take most of an hour

Range = tuple[str, int, int]
"""Judge shard, first row, row after the last."""


@dataclass(frozen=True)
class Run:
    input: int
    shard: str
    start: int  # row of the judge shard
    stop: int  # the row after the last
    first: str  # pair_id
    last: str


def ordered_runs(judged: Whole) -> list[Run]:
    """Every judged row once, in the order of the corpus. Raises InputError where a pair stands twice."""
    shards = [shard for shard, summary in judged.shards.items() if summary.rows_out]
    with ThreadPoolExecutor(READERS) as pool:
        found = [run for runs in pool.map(lambda shard: list(_runs(judged, shard)), shards) for run in runs]
    runs = sorted(found, key=lambda run: (run.input, run.first))
    for earlier, later in pairwise(runs):
        if earlier.input == later.input and later.first <= earlier.last:
            raise _disorder(judged, later.shard, later.first, earlier.last)
    _refuse_common_pairs(judged, runs)
    return runs


def cut(ranges: Sequence[Range], shard_rows: int) -> Iterator[list[Range]]:
    """Even shards in the same order; the last one may be smaller."""
    shard: list[Range] = []
    room = shard_rows
    for name, start, stop in ranges:
        while start < stop:
            end = min(start + room, stop)
            shard.append((name, start, end))
            room -= end - start
            start = end
            if room == 0:
                yield shard
                shard, room = [], shard_rows
    if shard:
        yield shard


def _runs(judged: Whole, shard: str) -> Iterator[Run]:
    rows = judged.read(shard).table("judged", ["input", "source", "pair_id"])
    start = 0
    for _, same in groupby(rows["source"].to_pylist()):
        stop = start + sum(1 for _ in same)
        pair_ids = rows["pair_id"].slice(start, stop - start)
        _refuse_disorder(judged, shard, pair_ids)
        yield Run(rows["input"][0].as_py(), shard, start, stop, pair_ids[0].as_py(), pair_ids[-1].as_py())
        start = stop


def _refuse_disorder(judged: Whole, shard: str, pair_ids: pa.ChunkedArray) -> None:
    ascends = pc.less(pair_ids.slice(0, len(pair_ids) - 1), pair_ids.slice(1))
    if not pc.all(ascends, min_count=0).as_py():
        row = pc.index(ascends, pa.scalar(value=False)).as_py()
        raise _disorder(judged, shard, pair_ids[row + 1].as_py(), pair_ids[row].as_py())


def _refuse_common_pairs(judged: Whole, runs: Sequence[Run]) -> None:
    """Between inputs. Runs overlap where a second pass fetched what a first one missed; few are open at once."""

    @lru_cache(maxsize=64)
    def pair_ids(run: Run) -> frozenset[str]:
        rows = judged.read(run.shard).table("judged", ["pair_id"])["pair_id"]
        return frozenset(rows.slice(run.start, run.stop - run.start).to_pylist())

    overlapping: list[Run] = []
    for run in sorted(runs, key=lambda run: run.first):
        overlapping = [other for other in overlapping if other.last >= run.first]
        for other in overlapping:
            common = min(pair_ids(run) & pair_ids(other), default=None)
            if common:
                raise InputError(
                    f"{common} is in two of filter.inputs (number {other.input} and {run.input}); a pair may stand in "
                    "the corpus once. Leave one of them out, or give its source another name in ingest.sources."
                )
        overlapping.append(run)


def _disorder(judged: Whole, shard: str, found: str, before: str) -> InputError:
    return InputError(
        f"{judged.folder.root}/filter_judge shard {shard}: {found} stands after {before}, so a pair is there twice or "
        "the download shards are not in the order of their list"
    )
