"""Every row accounted for, by someone who does not trust the frame: all files of the three stages are read.

- Each data file is byte for byte what it must be, and each row of a reject table its pair and its reason
  (trials.rehearsal.expected); a row stands in one place.
- Each data and reject file is named by exactly one commit record; each record, each row of the statistics and each
  line of the manifest says what the files say.

Only storage is asked here, and checksums are computed anew.
"""

import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from trials.faulty_store import UPLOADING
from trials.rehearsal.audit_shard import UNREADABLE, Facts, ShardAudit, audit_shard, differences, json_object
from trials.rehearsal.expected import STAGES, identity_of, shards_of
from trials.rehearsal.stages import ROWS

CHUNK = 500  # shards
OF_A_SHARD = re.compile(r"(?:(?:data|rejects)/([^/-]+)-[^/]+\.\w+|commits/([^/]+)\.json)")
OF_THE_STAGE = {"plan.json", "stats.parquet", "manifest.json"}
Counts = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Audit:
    """faults: what is wrong, as sentences; none where everything is as it must be. files: data, rejects, records."""

    rows: int
    kept: int
    rejected: int
    files: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class _Stage:
    """kept, rejected: by row number, how often it stands there."""

    kept: Counts
    rejected: Counts
    files: int
    faults: list[str]


def audit(root: str, shards: int, pool: Executor) -> Audit:
    """root: where the files lie, without anything between."""
    rows, marked, totals = (_audit_stage(pool, root, stage, shards) for stage in STAGES)
    faults = [
        *_strays("rows", rows.kept + rows.rejected),
        *_strays("marked", marked.kept + marked.rejected + rows.rejected),
        *rows.faults,
        *marked.faults,
        *totals.faults,
    ]
    rejected = int(rows.rejected.sum() + marked.rejected.sum())
    files = rows.files + marked.files + totals.files
    return Audit(shards * ROWS, int(marked.kept.sum()), rejected, files, tuple(faults))


def _strays(stage: str, seen: Counts) -> Iterator[str]:
    lost, twice = int((seen == 0).sum()), int((seen > 1).sum())
    if lost or twice:
        yield f"after {stage}: {lost} of {len(seen)} rows are nowhere, {twice} are there twice"


def _audit_stage(pool: Executor, root: str, stage: str, shards: int) -> _Stage:
    expected = shards_of(stage, shards)
    files, others = _listed(root, stage)
    others += [path for shard in sorted(files.keys() - set(expected)) for path in files[shard]]
    faults = [f"{stage}/{path} belongs to no shard" for path in others]
    stats = _statistics(root, stage, expected, faults)
    jobs = []
    for start in range(0, len(expected), CHUNK):
        chunk = {shard: files.get(shard, []) for shard in expected[start : start + CHUNK]}
        rows = stats and stats.slice(start, CHUNK)
        jobs.append(pool.submit(_audit_chunk, root, stage, shards, chunk, rows))
    found = [shard for job in jobs for shard in job.result()]
    faults += [fault for shard in found for fault in shard.faults]
    faults += _other_manifest(root, stage, {shard.id: shard.summary for shard in found})
    kept, rejected = (np.zeros(shards * ROWS, np.int64) for _ in range(2))
    for shard in found:
        np.add.at(kept, shard.kept, 1)
        np.add.at(rejected, shard.rejected, 1)
    return _Stage(kept, rejected, sum(map(len, files.values())), faults)


def _listed(root: str, stage: str) -> tuple[dict[str, list[str]], list[str]]:
    """Paths below the stage's folder: by shard, and those that should not be there."""
    store, files, others = _store(root), defaultdict(list), []
    top = f"{store._strip_protocol(root)}/{stage}/"
    for path in sorted(name.removeprefix(top) for name in store.find(top)):
        if UPLOADING in path:  # a writer that was killed left it behind; in an object store it is not there
            continue
        match = OF_A_SHARD.fullmatch(path)
        if match:
            files[match[1] or match[2]].append(path)
        elif path not in OF_THE_STAGE:
            others.append(path)
    return files, others


def _audit_chunk(
    root: str, stage: str, shards: int, files: Mapping[str, Sequence[str]], stats: Any
) -> list[ShardAudit]:
    """files: by shard. stats: their rows of the statistics, in the same order, or None."""
    store = _store(root)
    top = f"{store._strip_protocol(root)}/{stage}/"
    paths = [top + path for of_shard in files.values() for path in of_shard]
    found = {path.removeprefix(top): data for path, data in store.cat(paths).items()} if paths else {}
    rows = stats.to_pylist() if stats else [None] * len(files)
    return [
        audit_shard(stage, shard, shards, {path: found[path] for path in of_shard}, row)
        for (shard, of_shard), row in zip(files.items(), rows, strict=True)
    ]


def _statistics(root: str, stage: str, shards: Sequence[str], faults: list[str]) -> Any:
    """A table with one row a shard; None, and a fault, where there is no such table."""
    try:
        stats = pq.read_table(io.BytesIO(_store(root).cat_file(f"{root}/{stage}/stats.parquet")))
        if stats["shard"].to_pylist() == list(shards):
            return stats
        faults.append(f"{stage}/stats.parquet lists other shards")
    except UNREADABLE as error:
        faults.append(f"{stage}/stats.parquet cannot be read: {error}")
    return None


def _other_manifest(root: str, stage: str, summaries: Mapping[str, Facts]) -> Iterator[str]:
    where = f"{stage}/manifest.json"
    identity = identity_of({shard: summary["identity"] for shard, summary in summaries.items()})
    try:
        manifest = json_object(_store(root).cat_file(f"{root}/{where}"))
    except UNREADABLE as error:
        yield f"{where} cannot be read: {error}"
        return
    yield from differences(where, manifest, {"stage": stage, "identity": identity})
    lines = manifest.get("shards")
    if not isinstance(lines, dict) or lines.keys() != summaries.keys():
        yield f"{where} lists other shards"
        return
    for shard, summary in summaries.items():
        if lines[shard] != summary:
            yield f"{where}: what it says of shard {shard} is {lines[shard]}, not {summary}"


def _store(root: str) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(root, use_listings_cache=False)[0]
