"""What is kept of a stage's commit records when it ends: statistics, the manifest's lines and the names of its files.

Records are read a thousand at a time, so that the driver never holds 75,000 of them."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.commits import CommitRecord, ShardSummary, record_path
from pipeline.reasons import Reason

READERS = 64  # an object store takes its time for each
CHUNK = 1000


@dataclass
class Ledger:
    """unbelieved: shard → why its record counts for nothing."""

    shards: dict[str, ShardSummary] = field(default_factory=dict)
    unbelieved: dict[str, str] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)  # files
    _stats: list[pa.Table] = field(default_factory=list)

    @classmethod
    def of(cls, shards: Iterable[str], read: Callable[[str], CommitRecord | str], sizes: Mapping[str, int]) -> "Ledger":
        """In the order of shards. read: the record, or why it cannot be believed; sizes: of every file of the stage."""
        ledger, waiting = cls(), iter(shards)
        with ThreadPoolExecutor(READERS) as pool:
            while chunk := list(islice(waiting, CHUNK)):
                found = dict(zip(chunk, pool.map(read, chunk), strict=True))
                ledger.unbelieved |= {shard: why for shard, why in found.items() if isinstance(why, str)}
                ledger._add([record for record in found.values() if isinstance(record, CommitRecord)], sizes)
        return ledger

    def _add(self, records: Sequence[CommitRecord], sizes: Mapping[str, int]) -> None:
        self.shards |= {record.shard: _summary(record, sizes[record_path(record.shard)]) for record in records}
        self.named |= {file.path for record in records for file in record.all_files()}
        self._stats.append(pa.Table.from_pylist([stats_row(record) for record in records], schema=schemas.STATS))

    def stats(self) -> bytes:
        """As parquet, schema STATS."""
        written = io.BytesIO()
        pq.write_table(pa.concat_tables(self._stats), written, compression="zstd")
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
