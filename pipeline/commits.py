"""The commit protocol of one stage's folder: who writes what, and what a reader may believe.

    plan.json                 fingerprint, what `auto` came to, the shards to make; created only if absent
    data/…                    files of shards; a name carries shard and attempt and is never written twice
    rejects/<shard>-<attempt>.parquet
    commits/<shard>.json      the commit record; the first one wins, and a shard is done when it exists
    stats.parquet             one row a shard
    manifest.json             written last: the stage is whole

A stage that was taken from a base holds taken.json alone, which says where the stage lies.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, cast

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from pipeline.checksums import sha256_of_json
from pipeline.disk import allow_many_open_files
from pipeline.errors import InputError
from pipeline.parquet import read_table
from pipeline.recipe import Json, Section
from pipeline.storage import Store, open_store

Kept = TypeVar("Kept", bound=Section)
PLAN, MANIFEST, STATS, TAKEN = "plan.json", "manifest.json", "stats.parquet", "taken.json"


class FileEntry(Section):
    path: str  # below the stage's folder
    bytes: int
    sha256: str


class CommitRecord(Section):
    stage: str
    shard: str
    attempt: str
    fingerprint: str
    files: dict[str, FileEntry]  # none: a failed shard that was accepted, or one that reads such a shard
    rejects_file: FileEntry | None
    inputs: dict[str, str]  # input → identity of the shard read, or of the whole stage
    rows_in: int
    rows_out: int
    rejects: dict[str, int]  # reason → rows
    metrics: dict[str, float]
    conditions: dict[str, Json]
    seconds: float
    host: str

    @property
    def identity(self) -> str:
        """Hash of the data files' checksums."""
        return sha256_of_json({name: file.sha256 for name, file in self.files.items()})

    def all_files(self) -> list[FileEntry]:
        return [*self.files.values(), *filter(None, [self.rejects_file])]


class StagePlan(Section):
    """parts: what the fingerprint was made of, so that a refusal can name the field."""

    format: Literal[2]  # of all files of the protocol
    fingerprint: str
    parts: dict[str, Json]
    resolved: dict[str, Json]
    shards: list[tuple[str, dict[str, Json]]]


class ShardSummary(Section):
    identity: str  # of the shard's data
    record_bytes: int
    rows_in: int
    rows_out: int
    empty: bool  # holds no file


class Manifest(Section):
    stage: str
    fingerprint: str
    identity: str  # hash of its shards' identities
    inputs: dict[str, str]  # input → its identity
    shards: dict[str, ShardSummary]


class Taken(Section):
    """Stands in a new root for a stage that was taken from its base."""

    root: str
    fingerprint: str  # the stage's own
    wanted: str  # what this recipe asked for: different only where `base.accept` names the stage
    identity: str


def record_path(shard: str) -> str:
    return f"commits/{shard}.json"


@dataclass(frozen=True)
class StageFolder:
    """root/<stage>, wherever it lies."""

    root: str
    stage: str

    @cached_property
    def store(self) -> Store:
        return open_store(f"{self.root.rstrip('/')}/{self.stage}")

    def plan(self) -> StagePlan | None:
        return self._read(StagePlan, PLAN)

    def manifest(self) -> Manifest | None:
        return self._read(Manifest, MANIFEST)

    def taken(self) -> Taken | None:
        return self._read(Taken, TAKEN)

    def _read(self, kind: type[Kept], path: str) -> Kept | None:
        """None where there is no such file. Raises InputError where it is not what it should be."""
        try:
            return kind.model_validate_json(self.store.read(path))
        except FileNotFoundError:
            return None
        except ValidationError:
            raise InputError(
                f"{self.root}/{self.stage}/{path} cannot be read: it is broken, or of another version of this program "
                f"(finish the root with that one). Nothing was changed; remove {self.root}/{self.stage} to make it anew"
            ) from None

    def committed(self) -> set[str]:
        """The shards that are done, by listing alone."""
        return _done(self.store.list("commits"))

    def sweep_records(self) -> set[str]:
        """The shards that are done, and empty records are removed: a full disk leaves them, no writer makes one."""
        sizes = self.store.list("commits")
        self.store.delete(f"commits/{name}" for name, size in sizes.items() if not size)
        return _done(sizes)

    def record(self, shard: str) -> CommitRecord:
        return self.record_and_bytes(shard)[0]

    def record_and_bytes(self, shard: str) -> tuple[CommitRecord, int]:
        """Raises InputError where it cannot be read as one of this stage."""
        path = record_path(shard)
        data = self.store.read(path)
        try:
            record = CommitRecord.model_validate_json(data)
        except ValidationError:
            raise InputError(f"{self.root}/{self.stage}/{path} is not a commit record ({len(data)} bytes)") from None
        if (record.stage, record.shard) != (self.stage, shard):
            raise InputError(f"{self.root}/{self.stage}/{path} is the record of {record.stage} {record.shard}")
        return record, len(data)


def misfit(path: str, found: int | None, wanted: int) -> str | None:
    """What is wrong with a file, by its size in bytes; found: None where there is none."""
    if found == wanted:
        return None
    return f"{path} is missing" if found is None else f"{path} has {found} bytes instead of {wanted}"


def _done(sizes: Mapping[str, int]) -> set[str]:
    return {name.removesuffix(".json") for name, size in sizes.items() if size}


def resolve_folder(root: str, stage: str) -> StageFolder:
    """Where a stage's files really lie: in the root, or in the root that it was taken from."""
    folder = StageFolder(root, stage)
    taken = folder.taken()
    return resolve_folder(taken.root, stage) if taken else folder


def identity_of(shards: Mapping[str, ShardSummary]) -> str:
    return sha256_of_json({shard: summary.identity for shard, summary in shards.items()})


@dataclass(frozen=True)
class Committed:
    """The files of one committed shard, as its record names them."""

    folder: StageFolder
    record: CommitRecord

    @property
    def shard(self) -> str:
        return self.record.shard

    @property
    def identity(self) -> str:
        return self.record.identity

    def entry(self, name: str) -> FileEntry:
        """Raises InputError where the file is gone or of another size than recorded."""
        entry = self.record.files[name]
        fault = misfit(entry.path, self.folder.store.size(entry.path), entry.bytes)
        if fault:
            raise InputError(
                f"{self.folder.root}/{self.folder.stage}/{fault}: shard {self.shard} of {self.folder.stage} is broken; "
                "the next run of its job makes it again"
            )
        return entry

    def path(self, name: str) -> Path:
        """A local path; from an object store the file is copied to the cache first."""
        entry = self.entry(name)
        return self.folder.store.local(entry.path, entry.sha256)

    def open(self, name: str) -> BinaryIO:
        """A seekable binary file."""
        return self.folder.store.open(self.entry(name).path)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        with self.open(name) as file:
            return read_table(file, columns)

    def json(self, name: str) -> Json:
        with self.open(name) as file:
            return json.load(file)

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """Memory-mapped, read-only. Each keeps its file open."""
        allow_many_open_files()
        return cast(np.ndarray[Any, Any], np.load(self.path(name), mmap_mode="r", allow_pickle=False))


@dataclass(frozen=True)
class Whole:
    """A stage that is whole: what its manifest lists."""

    folder: StageFolder
    manifest: Manifest

    @classmethod
    @lru_cache(maxsize=16)  # a manifest never changes, and one of 75,000 shards takes 0.2 s to parse
    def open(cls, root: str, stage: str) -> "Whole":
        """Raises InputError where the stage is not whole."""
        folder, taken = resolve_folder(root, stage), StageFolder(root, stage).taken()
        manifest = folder.manifest()
        if manifest is None:
            raise InputError(f"{root}/{stage} is not whole (no {MANIFEST}); run its job again to finish it")
        if taken and taken.identity != manifest.identity:
            raise InputError(
                f"{root}/{stage} was taken from {taken.root}, which was made anew since: its identity was "
                f"{taken.identity[:12]} and is {manifest.identity[:12]}. Start a new root on it."
            )
        return cls(folder, manifest)

    @property
    def identity(self) -> str:
        return self.manifest.identity

    @cached_property
    def shards(self) -> Mapping[str, ShardSummary]:
        """Those that hold files: a failed shard that was accepted is in no reader's way."""
        return {shard: summary for shard, summary in self.manifest.shards.items() if not summary.empty}

    @property
    def rows(self) -> int:
        return sum(summary.rows_out for summary in self.shards.values())

    def read(self, shard: str) -> Committed:
        """Raises InputError where the record names other data than the manifest lists."""
        record = self.folder.record(shard)
        if record.identity != self.shards[shard].identity:
            raise InputError(f"{self.folder.root}/{self.folder.stage}/commits/{shard}.json changed after the manifest")
        return Committed(self.folder, record)

    def tables(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One table of all shards, in shard order."""
        return pa.concat_tables([self.read(shard).table(name, columns) for shard in self.shards])

    def plan(self) -> StagePlan:
        plan = self.folder.plan()
        assert plan is not None, "a whole stage has a plan"
        return plan
