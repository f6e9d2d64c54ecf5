"""Whether the files of a stage are still those that were committed, told by one listing: sizes, not contents."""

import io
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.commits import STATS, CommitRecord, Manifest, StageFolder, misfit, record_path


def damage(folder: StageFolder, manifest: Manifest) -> dict[str, str | None]:
    """Of a whole stage: what is wrong with a file → the shard to make again (None: the statistics)."""
    sizes = folder.store.list("")
    expected = {record_path(shard): (shard, summary.record_bytes) for shard, summary in manifest.shards.items()}
    try:
        expected |= _files(pq.read_table(io.BytesIO(folder.store.read(STATS)), columns=["shard", "files"]))
    except (FileNotFoundError, pa.ArrowException) as error:
        return {f"{STATS} cannot be read: {error}": None}
    faults = ((misfit(path, sizes.get(path), size), shard) for path, (shard, size) in expected.items())
    return {fault: shard for fault, shard in faults if fault}


def fault_of(record: CommitRecord, sizes: Mapping[str, int]) -> str | None:
    """What is wrong with the first file of a shard that is not as its record says."""
    faults = (misfit(entry.path, sizes.get(entry.path), entry.bytes) for entry in record.all_files())
    return next(filter(None, faults), None)


def _files(stats: pa.Table) -> dict[str, tuple[str, int]]:
    """Path → its shard and its size in bytes."""
    shards = zip(stats["shard"].to_pylist(), stats["files"].to_pylist(), strict=True)
    return {file["path"]: (shard, file["bytes"]) for shard, files in shards for file in files}
