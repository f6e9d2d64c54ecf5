"""Whether the files of a stage are still those that were committed, told by one listing: sizes, not contents."""

import io
from collections.abc import Collection, Mapping

import pyarrow as pa

from pipeline.commits import STATS, CommitRecord, Manifest, StageFolder, misfit, record_path
from pipeline.errors import InputError
from pipeline.parquet import read_table

MENDED_SHARE = 0.01  # of a stage's shards, made again without a question


def damage(folder: StageFolder, manifest: Manifest) -> dict[str, str | None]:
    """Of a whole stage: what is wrong with a file → the shard to make again (None: the statistics)."""
    try:
        stats = read_table(io.BytesIO(folder.store.read(STATS)), ["shard", "files"])
    except (FileNotFoundError, pa.ArrowException, OSError) as error:
        return {f"{STATS} cannot be read: {error}": None}
    sizes = folder.store.list("")  # after the statistics: another driver may be at work
    expected = {record_path(shard): (shard, summary.record_bytes) for shard, summary in manifest.shards.items()}
    expected |= _files(stats)
    faults = ((_fault(folder, path, sizes, size), shard) for path, (shard, size) in expected.items())
    return {fault: shard for fault, shard in faults if fault}


def fault_of(folder: StageFolder, record: CommitRecord, sizes: Mapping[str, int]) -> str | None:
    """What is wrong with the first file of a shard that is not as its record says."""
    faults = (_fault(folder, entry.path, sizes, entry.bytes) for entry in record.all_files())
    return next(filter(None, faults), None)


def refuse_to_remake(folder: StageFolder, faults: Collection[str], shards: int) -> None:
    """Raises InputError where so much is gone that a disk is missing rather than a file."""
    if len(faults) > max(2, shards * MENDED_SHARE):
        raise InputError(
            f"{folder.root}/{folder.stage}: {len(faults):,} of {shards:,} shards are broken ({next(iter(faults))}, …). "
            f"Is a disk or a mount missing? Nothing was changed. To have the stage made anew, remove "
            f"{folder.root}/{folder.stage}"
        )


def _fault(folder: StageFolder, path: str, sizes: Mapping[str, int], wanted: int) -> str | None:
    """A listing may lag behind (NFS), so the file itself is asked before it is said to be gone."""
    if sizes.get(path) == wanted:
        return None
    return misfit(path, folder.store.size(path), wanted)


def _files(stats: pa.Table) -> dict[str, tuple[str, int]]:
    """Path → its shard and its size in bytes."""
    shards = zip(stats["shard"].to_pylist(), stats["files"].to_pylist(), strict=True)
    return {file["path"]: (shard, file["bytes"]) for shard, files in shards for file in files}
