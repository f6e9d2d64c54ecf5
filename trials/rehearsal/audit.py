"""Every row accounted for, by someone who does not trust the frame: all files are read, and compared with what they
must hold. Only storage is asked here; no record is believed."""

import hashlib
import io
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.checksums import sha256_of_json
from pipeline.stage import shard_id
from trials.faulty_store import UPLOADING
from trials.rehearsal.stages import ROWS, high_enough, marked_table, numbers_of, rows_table, well_formed

CHUNK = 500
Counts = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Audit:
    """faults: what is wrong, as sentences; none where every row is where it belongs."""

    rows: int
    kept: int
    rejected: int
    files: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class _Folder:
    """Every file of a stage's data or rejects."""

    seen: Counts  # by row number: how often it stands there
    checksums: dict[str, str]  # file's name up to the attempt, that is shard → sha256
    files: int


def audit(root: str, shards: int) -> Audit:
    """root: where the files lie, without anything between."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        rows, rows_rejects, marked, marked_rejects = (
            _read(pool, root, folder, shards)
            for folder in ("rows/data", "rows/rejects", "marked/data", "marked/rejects")
        )
        expected = list(zip(*_chunked(pool, _expected, [shard_id(n) for n in range(shards)]), strict=True))
    faults = [
        *_strays("after rows", rows.seen + rows_rejects.seen),
        *_strays("after marked", marked.seen + marked_rejects.seen + rows_rejects.seen),
        *_other_identity(root, "rows", rows, expected[0]),
        *_other_identity(root, "marked", marked, expected[1]),
        *_other_total(root, marked.seen),
    ]
    folders = (rows, rows_rejects, marked, marked_rejects)
    rejected = int(rows_rejects.seen.sum() + marked_rejects.seen.sum())
    return Audit(shards * ROWS, int(marked.seen.sum()), rejected, sum(f.files for f in folders), tuple(faults))


def _strays(where: str, seen: Counts) -> Iterator[str]:
    lost, twice = int((seen == 0).sum()), int((seen > 1).sum())
    if lost or twice:
        yield f"{where}: {lost} of {len(seen)} rows are nowhere, {twice} are there twice"


def _other_identity(root: str, stage: str, folder: _Folder, expected: Sequence[str]) -> Iterator[str]:
    """Of the files read, of the files as they must be, and of the manifest: three ways to one checksum."""
    found = {
        "in the manifest": json.loads(_store(root).cat_file(f"{root}/{stage}/manifest.json"))["identity"],
        "by its files": _identity([folder.checksums.get(shard_id(n), "") for n in range(len(expected))]),
        "undisturbed": _identity(expected),
    }
    if len(set(found.values())) > 1:
        yield f"{stage}: identity is " + ", ".join(f"{identity[:12]} {where}" for where, identity in found.items())


def _identity(checksums: Sequence[str]) -> str:
    shards = {shard_id(n): sha256_of_json({"rows": checksum}) for n, checksum in enumerate(checksums)}
    return sha256_of_json(shards)


def _other_total(root: str, seen: Counts) -> Iterator[str]:
    store = _store(root)
    found = [json.loads(data) for data in store.cat(sorted(store.find(f"{root}/totals/data"))).values()]
    total, expected = sum(part["sum"] for part in found), int((np.arange(len(seen)) * seen).sum())
    if total != expected:
        yield f"totals: the sum is {total}, not {expected}"


def _read(pool: ProcessPoolExecutor, root: str, folder: str, shards: int) -> _Folder:
    files = sorted(_store(root).find(f"{root}/{folder}"))
    seen, checksums = np.zeros(shards * ROWS, np.int64), {}
    for name, checksum, numbers in _chunked(pool, _numbers_in, files, root):
        np.add.at(seen, numbers, 1)
        checksums[name.rpartition("/")[2].partition("-")[0]] = checksum
    return _Folder(seen, checksums, len(files))


def _numbers_in(files: Sequence[str], root: str) -> list[tuple[str, str, list[int]]]:
    found = []
    whole = [name for name in files if UPLOADING not in name]  # a writer that was killed leaves the rest behind
    for name, data in _store(root).cat(whole).items():
        pair_ids = pq.read_table(io.BytesIO(data), columns=["pair_id"])["pair_id"].to_pylist()
        found.append(
            (name, hashlib.sha256(data).hexdigest(), [int(pair_id.rpartition("-")[2]) for pair_id in pair_ids])
        )
    return found


def _expected(shards: Sequence[str]) -> list[tuple[str, str]]:
    """Checksums of both stages' files, computed from nothing but the shard's number."""
    found = []
    for shard in shards:
        rows = numbers_of(shard)[well_formed(numbers_of(shard))]
        marked = rows[high_enough(rows)]
        found.append((_checksum(rows_table(rows)), _checksum(marked_table(marked))))
    return found


def _checksum(table: Any) -> str:
    written = io.BytesIO()
    pq.write_table(table, written, compression="zstd")
    return hashlib.sha256(written.getvalue()).hexdigest()


def _chunked(
    pool: ProcessPoolExecutor, work: Callable[..., list[Any]], items: Sequence[str], *others: str
) -> Iterable[Any]:
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    jobs = [pool.submit(work, chunk, *others) for chunk in chunks]
    return (found for job in jobs for found in job.result())


def _store(root: str) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(root, use_listings_cache=False)[0]
