"""The audit of one shard: its files, its commit record and its row of the statistics."""

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.reasons import Reason
from trials.rehearsal.expected import Expected, expected_shard
from trials.rehearsal.stages import ROWS

UNREADABLE = (pa.ArrowException, OSError, KeyError, ValueError)
PAIR_ID = re.compile(r"rehearsal-(\d{10})")
Facts = Mapping[str, Any]
Files = dict[str, bytes]  # contents by path below the stage's folder


@dataclass
class ShardAudit:
    """kept, rejected: row numbers in every file there is. summary: what the manifest must say of the shard."""

    id: str
    summary: Facts
    kept: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # sentences


def audit_shard(stage: str, shard: str, shards: int, files: Files, stats: Facts | None) -> ShardAudit:
    """shards: of the run. stats: the shard's row, or None where statistics cannot be read."""
    expected = expected_shard(stage, shard, shards)
    data = {path: content for path, content in files.items() if path.startswith("data/")}
    rejects = {path: content for path, content in files.items() if path.startswith("rejects/")}
    record = files.get(f"commits/{shard}.json", b"")
    found = ShardAudit(shard, _summary(expected, len(record)))
    for path, content in data.items():
        if content != expected.data:
            found.faults.append(f"{stage}/{path} is not what it must be")
        if path.endswith(".parquet"):
            pair_ids = _columns(f"{stage}/{path}", content, found.faults).get("pair_id", [])
            found.kept += _numbers(f"{stage}/{path}", pair_ids, shards * ROWS, found.faults)
    for path, content in rejects.items():
        columns = _columns(f"{stage}/{path}", content, found.faults)
        pairs = list(zip(columns.get("pair_id", []), columns.get("reason", []), strict=False))
        if pairs != list(expected.rejects):
            found.faults.append(f"{stage}/{path} rejects {pairs}, not {list(expected.rejects)}")
        found.rejected += _numbers(f"{stage}/{path}", columns.get("pair_id", []), shards * ROWS, found.faults)
    found.faults += _other_record(stage, shard, record, expected, data, rejects)
    if stats:
        must = _stats(shard, expected, data, rejects)
        found.faults += differences(f"{stage}/stats.parquet: {shard}", stats, must)
    return found


def differences(where: str, said: Facts, must: Facts) -> Iterator[str]:
    for key, value in must.items():
        if said.get(key) != value:
            yield f"{where}: {key} is {said.get(key)!r}, not {value!r}"


def json_object(data: bytes) -> dict[str, Any]:
    """Raises ValueError where it is none."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"no JSON object but {value!r}")
    return value


def _columns(where: str, content: bytes, faults: list[str]) -> dict[str, list[Any]]:
    """Of a table; none, and a fault, where it cannot be read."""
    try:
        return dict(pq.read_table(io.BytesIO(content)).to_pydict())
    except UNREADABLE as error:
        faults.append(f"{where} cannot be read: {error}")
        return {}


def _numbers(where: str, pair_ids: Sequence[object], rows: int, faults: list[str]) -> list[int]:
    """Of the pairs that the run has; any other pair is a fault."""
    numbers = []
    for pair_id in pair_ids:
        match = PAIR_ID.fullmatch(str(pair_id))
        if match and int(match[1]) < rows:
            numbers.append(int(match[1]))
        else:
            faults.append(f"{where} holds {pair_id!r}, which is no row of this run")
    return numbers


def _other_record(
    stage: str, shard: str, record: bytes, expected: Expected, data: Files, rejects: Files
) -> Iterator[str]:
    where = f"{stage}/commits/{shard}.json"
    try:
        said = json_object(record)
    except ValueError as error:
        yield f"{where} is missing or cannot be read: {error}"
        return
    counts = {"rows_in": expected.rows_in, "rows_out": expected.rows_out, "rejects": expected.reasons}
    yield from differences(where, said, {"stage": stage, "shard": shard, **counts})
    yield from _other_naming(where, said.get("files"), [{expected.name: _entry(*file)} for file in data.items()])
    yield from _other_naming(where, said.get("rejects_file"), [_entry(*file) for file in rejects.items()] or [None])


def _other_naming(where: str, named: object, there: Sequence[object]) -> Iterator[str]:
    """Exactly one is there, and it is named as it is: path, size and checksum."""
    if there != [named]:
        yield f"{where} names {named}, and there is {there or 'none'}"


def _entry(path: str, content: bytes) -> Facts:
    return {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _summary(expected: Expected, record_bytes: int) -> Facts:
    return {
        "identity": expected.identity,
        "record_bytes": record_bytes,
        "rows_in": expected.rows_in,
        "rows_out": expected.rows_out,
        "empty": False,
    }


def _stats(shard: str, expected: Expected, data: Files, rejects: Files) -> Facts:
    return {
        "shard": shard,
        "rows_in": expected.rows_in,
        "rows_out": expected.rows_out,
        "bytes": sum(map(len, data.values())),
        "files": [{"path": path, "bytes": len(content)} for path, content in (data | rejects).items()],
        **{reason.value: expected.reasons.get(reason.value, 0) for reason in Reason},
    }
