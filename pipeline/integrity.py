"""Whether the files of a stage are still those that were committed, told by one listing: sizes, not contents."""

import io
from collections.abc import Collection, Mapping
from itertools import islice

import pyarrow as pa

from pipeline.commits import STATS, CommitRecord, Manifest, StageFolder, misfit, record_path
from pipeline.errors import InputError
from pipeline.parquet import read_table

MENDED_SHARE = 0.01


def damage(folder: StageFolder, manifest: Manifest) -> dict[str, str | None]:
    """Of a whole stage: what is wrong with a file → the shard to make again (None: the statistics). No more than
    it takes to refuse them."""
    try:
        stats = _stats(folder)
    except InputError as error:
        return {str(error): None}
    sizes = folder.store.list("")  # after the statistics: another driver may be at work
    expected = {record_path(shard): (shard, summary.record_bytes) for shard, summary in manifest.shards.items()}
    expected |= _files(stats)
    faults = ((_fault(folder, path, sizes, size), shard) for path, (shard, size) in expected.items())
    wrong = ((fault, shard) for fault, shard in faults if fault)
    return dict(islice(wrong, _mended(len(manifest.shards)) + 1))


def fault_of(folder: StageFolder, record: CommitRecord, sizes: Mapping[str, int]) -> str | None:
    """What is wrong with the first file of a shard that is not as its record says."""
    faults = (_fault(folder, entry.path, sizes, entry.bytes) for entry in record.all_files())
    return next(filter(None, faults), None)


def refuse_to_remake(folder: StageFolder, faults: Collection[str], shards: int) -> None:
    """Raises InputError where so much is gone that a disk is missing rather than a file."""
    if len(faults) > _mended(shards):
        raise InputError(
            f"{folder.root}/{folder.stage}: more than {_mended(shards):,} of {shards:,} shards are broken "
            f"({next(iter(faults))}, …). Is a disk or a mount missing? Nothing was changed. To have the stage made "
            f"anew, remove {folder.root}/{folder.stage}"
        )


def _mended(shards: int) -> int:
    """How many of a stage's shards are made again without a question."""
    return max(2, int(shards * MENDED_SHARE))


def _stats(folder: StageFolder) -> pa.Table:
    """Raises InputError where they are gone or broken."""
    try:
        data = folder.store.read(STATS)
    except FileNotFoundError:
        raise InputError(f"{STATS} is missing") from None
    try:
        return read_table(io.BytesIO(data), ["shard", "files"])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{STATS} cannot be read: {error}") from None


def _fault(folder: StageFolder, path: str, sizes: Mapping[str, int], wanted: int) -> str | None:
    """A listing may lag behind (NFS), so the file itself is asked before it is said to be gone."""
    if sizes.get(path) == wanted:
        return None
    return misfit(path, folder.store.size(path), wanted)


def _files(stats: pa.Table) -> dict[str, tuple[str, int]]:
    """Path → its shard and its size in bytes."""
    shards = zip(stats["shard"].to_pylist(), stats["files"].to_pylist(), strict=True)
    return {file["path"]: (shard, file["bytes"]) for shard, files in shards for file in files}
