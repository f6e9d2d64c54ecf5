"""What is kept of a stage's commit records when it ends: statistics, the manifest's lines and the names of its files.

Records are read a thousand at a time, so that the driver never holds 75,000 of them."""

import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.commits import CommitRecord, ShardSummary
from pipeline.reasons import Reason

READERS = 64  # an object store takes its time for each
CHUNK = 1000


@dataclass(frozen=True)
class Unbelieved:
    """Why a record counts for nothing. lost: a file of its shard is gone or cut."""

    why: str
    lost: bool = False


@dataclass
class Ledger:
    shards: dict[str, ShardSummary] = field(default_factory=dict)
    unbelieved: dict[str, Unbelieved] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)  # files
    _stats: list[pa.Table] = field(default_factory=list)

    @classmethod
    def of(cls, shards: Iterable[str], read: Callable[[str], tuple[CommitRecord, int] | Unbelieved]) -> "Ledger":
        """In the order of shards. read: the record and its bytes, or why it cannot be believed."""
        ledger, waiting = cls(), iter(shards)
        with ThreadPoolExecutor(READERS) as pool:
            while chunk := list(islice(waiting, CHUNK)):
                found = dict(zip(chunk, pool.map(read, chunk), strict=True))
                ledger.unbelieved |= {shard: why for shard, why in found.items() if isinstance(why, Unbelieved)}
                ledger._add([record for record in found.values() if not isinstance(record, Unbelieved)])
        return ledger

    def _add(self, found: Sequence[tuple[CommitRecord, int]]) -> None:
        self.shards |= {record.shard: _summary(record, size) for record, size in found}
        self.named |= {file.path for record, _ in found for file in record.all_files()}
        self._stats.append(pa.Table.from_pylist([stats_row(record) for record, _ in found], schema=schemas.STATS))

    def stats(self) -> bytes:
        """As parquet, schema STATS."""
        written = io.BytesIO()
        pq.write_table(pa.concat_tables([schemas.STATS.empty_table(), *self._stats]), written, compression="zstd")
        return written.getvalue()


def _summary(record: CommitRecord, record_bytes: int) -> ShardSummary:
    return ShardSummary(
        identity=record.identity,
        record_bytes=record_bytes,
        rows_in=record.rows_in,
        rows_out=record.rows_out,
        empty=not record.files,
    )


def stats_row(record: CommitRecord) -> dict[str, Any]:
    return {
        "shard": record.shard,
        "attempt": record.attempt,
        "rows_in": record.rows_in,
        "rows_out": record.rows_out,
        "seconds": record.seconds,
        "bytes": sum(file.bytes for file in record.files.values()),
        "host": record.host,
        **{reason.value: record.rejects.get(reason.value, 0) for reason in Reason},
        "metrics": list(record.metrics.items()),
        "files": [{"path": file.path, "bytes": file.bytes} for file in record.all_files()],
    }
