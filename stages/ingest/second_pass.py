"""A second pass: the rows that another run tried to fetch in vain, as they stood there.

Reads   ingest_rows and download of the other root
Writes  urls: schemas.URLS, the rows in their old order; a shard the rows of consecutive old shards, about shard_size
Rejects nothing
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, cast

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import CommitRecord, Whole
from pipeline.errors import InputError
from pipeline.parquet import read_table
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.schemas import URLS
from pipeline.stage import Counts, Input, Need, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.ingest.origins import source_lists
from stages.ingest.ranges import grouped
from stages.ingest.recipe import RejectedRows

READERS = 16  # records read at once
LISTED, FETCHED = "first.ingest_rows", "first.download"


@dataclass(frozen=True)
class SecondPass(Stage[None]):
    source: RejectedRows
    shard_size: int

    name: ClassVar[str] = "ingest_rows"  # as download reads it
    version: ClassVar[int] = 1

    @property
    def inputs(self) -> Sequence[Input]:
        root = self.source.root
        return (
            Input("ingest_rows", Need.WHOLE, root, LISTED),
            Input("download", Need.WHOLE, root, FETCHED),
        )

    def settings(self) -> Mapping[str, Json]:
        return {"reasons": list(self.source.reasons), "shard_size": self.shard_size}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        """lists: what pair ids mean, which the first pass knows."""
        groups = grouped(_rejected_rows(whole[FETCHED], self.source.reasons), self.shard_size)
        shards = [Shard(shard_id(n), {"shards": group}) for n, group in enumerate(groups)]
        if not shards:
            raise _nothing_to_fetch(whole[FETCHED], self.source)
        return Plan(shards, {"lists": source_lists(self.source.root)})

    def pair_ids(self, task: Task) -> list[str]:
        return cast(list[str], self._rows(task)["pair_id"].to_pylist())

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        rows = self._rows(task)
        out.table("urls", "{stem}.parquet", rows)
        return Counts(rows.num_rows, rows.num_rows)

    def _rows(self, task: Task) -> pa.Table:
        listed, fetched = task.whole(LISTED), task.whole(FETCHED)
        return pa.concat_tables([self._rows_of(listed, fetched, shard) for shard in task.params["shards"]])

    def _rows_of(self, listed: Whole, fetched: Whole, shard: str) -> pa.Table:
        """Raises InputError where the list lacks a rejected row."""
        rows = listed.read(shard).table("urls").cast(URLS)
        wanted = _rejected_pairs(fetched, shard, self.source.reasons)
        found = rows.filter(pc.is_in(rows["pair_id"], value_set=wanted))
        if found.num_rows != len(wanted):
            raise InputError(
                f"{fetched.folder.root}/download shard {shard} rejected {len(wanted)} pairs, of which "
                f"{listed.folder.root}/ingest_rows holds {found.num_rows}"
            )
        return found


def check_first_pass(source: RejectedRows) -> list[str]:
    """Why there is no second one to make: the first is not whole, or left nothing to fetch."""
    try:
        Whole.open(source.root, "ingest_rows")
        fetched = Whole.open(source.root, "download")
    except InputError as error:
        return [str(error)]
    some = next(_rejected_rows(fetched, source.reasons), None)
    return [] if some else [str(_nothing_to_fetch(fetched, source))]


def _rejected_rows(fetched: Whole, reasons: Iterable[Reason]) -> Iterator[tuple[str, int]]:
    """Shards, and how many of their rows were rejected for these reasons; only shards with such rows."""
    for record in _records(fetched):
        rows = sum(record.rejects.get(reason, 0) for reason in reasons)
        if rows:
            yield record.shard, rows


def _records(fetched: Whole) -> Iterator[CommitRecord]:
    """In shard order, those of failed shards that were accepted too."""
    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(fetched.folder.record, fetched.manifest.shards)


def _rejected_pairs(fetched: Whole, shard: str, reasons: Iterable[Reason]) -> pa.Array:
    entry = fetched.folder.record(shard).rejects_file
    assert entry is not None, "planned because it has rejects"
    with fetched.folder.store.open(entry.path) as file:
        rejects = read_table(file, ["pair_id", "reason"])
    chosen = pc.is_in(rejects["reason"], value_set=pa.array([reason.value for reason in reasons]))
    return rejects["pair_id"].filter(chosen).combine_chunks()


def _nothing_to_fetch(fetched: Whole, source: RejectedRows) -> InputError:
    found: Counter[str] = Counter()
    for record in _records(fetched):
        found.update(record.rejects)
    told = ", ".join(f"{reason} {rows:,}" for reason, rows in found.most_common()) or "none"
    return InputError(
        f"{source.root} has nothing to fetch again: no row of its download was rejected for "
        f"{', '.join(source.reasons)}. Its rejects are: {told}. Name others in ingest.sources[0].reasons"
    )
