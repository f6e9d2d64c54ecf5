"""One shard being made: what a stage may read (Task), where it writes (ShardWriter), and how it is committed."""

import json
import secrets
import socket
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.checksums import sha256_of_file
from pipeline.commits import CommitRecord, Committed, FileEntry, StageFolder, Whole, record_path
from pipeline.disk import full_disk_told
from pipeline.errors import NotOpened, RecipeError, ShardFailed, StorageError
from pipeline.failpoints import failpoint
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.schemas import REJECTS
from pipeline.stage import ALL, Counts, Need, Shard, Share, Stage
from pipeline.threads import set_threads

REJECTS_FILE = "rejects"


@dataclass(frozen=True)
class Job:
    """What all shards of one stage share; it is sent to a worker once. sources: input key → where that stage lies."""

    stage: Stage[Any]
    folder: StageFolder
    sources: Mapping[str, StageFolder]
    fingerprint: str
    resolved: Mapping[str, Json]


@dataclass(frozen=True)
class Task:
    """A shard with what it may read."""

    job: Job
    shard: Shard
    share: Share = ALL
    _read: dict[str, Committed | Whole] = field(default_factory=dict)  # by input

    @property
    def id(self) -> str:
        return self.shard.id

    @property
    def params(self) -> Mapping[str, Json]:
        return self.shard.params

    @property
    def resolved(self) -> Mapping[str, Json]:
        return self.job.resolved

    def read(self, key: str) -> Committed:
        """The shard of this number of a SAME_SHARD input."""
        if key not in self._read:
            folder = self.job.sources[key]
            self._read[key] = Committed(folder, folder.record(self.shard.id))
        return cast(Committed, self._read[key])

    def whole(self, key: str) -> Whole:
        folder = self.job.sources[key]
        self._read[key] = Whole.open(folder.root, folder.stage)
        return cast(Whole, self._read[key])

    def inputs_read(self) -> dict[str, str]:
        """Every declared input, read or not: a record says what its shard depends on."""
        for source in self.job.stage.inputs:
            (self.read if source.need is Need.SAME_SHARD else self.whole)(source.key)
        return {key: read.identity for key, read in self._read.items()}

    @property
    def input_failed(self) -> bool:
        """A shard that this one needs was given up and accepted as rejects, so there is nothing to make it of."""
        chained = [source.key for source in self.job.stage.inputs if source.need is Need.SAME_SHARD]
        return any(not self.read(key).record.files for key in chained)


@dataclass
class ShardWriter:
    """Files and rejects of one attempt. `stem` is in every file's name, so no name is ever written twice."""

    shard: str
    _folder: Path
    attempt: str = field(default_factory=lambda: secrets.token_hex(4))
    _files: dict[str, tuple[Path, str]] = field(default_factory=dict)  # name → where it is written, where it belongs
    _rejects: list[tuple[str, Reason, str]] = field(default_factory=list)

    @property
    def stem(self) -> str:
        return f"{self.shard}-{self.attempt}"

    def file(self, name: str, pattern: str) -> Path:
        """Where to write a file; `{stem}` in its pattern (folder/name below data/) becomes shard and attempt."""
        assert "{stem}" in pattern, f"{pattern} would be written twice"
        return self._place(name, f"data/{pattern.format(stem=self.stem)}")

    def _place(self, name: str, path: str) -> Path:
        written = self._folder / f"{self.stem}.{name}.{Path(path).name}"
        self._files[name] = (written, path)
        return written

    def table(self, name: str, pattern: str, table: pa.Table) -> None:
        pq.write_table(table, self.file(name, pattern), compression="zstd")

    def array(self, name: str, pattern: str, array: np.ndarray[Any, Any]) -> None:
        np.save(self.file(name, pattern), array, allow_pickle=False)

    def json(self, name: str, pattern: str, value: Json) -> None:
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
        self.file(name, pattern).write_text(text + "\n", encoding="utf-8")

    def reject(self, pair_id: str, reason: Reason, detail: str = "") -> None:
        self._rejects.append((pair_id, reason, detail[:300]))

    @cached_property
    def rejected(self) -> dict[str, int]:
        return dict(sorted(Counter(reason.value for _, reason, _ in self._rejects).items()))

    def finish(self) -> dict[str, FileEntry]:
        """The entries of all files, by name, the table of rejects among them where there are any."""
        if self._rejects:
            pair_ids, reasons, details = zip(*self._rejects, strict=True)
            table = pa.table([pair_ids, [reason.value for reason in reasons], details], schema=REJECTS)
            pq.write_table(table, self._place(REJECTS_FILE, f"rejects/{self.stem}.parquet"), compression="zstd")
        return {name: _entry(written, path) for name, (written, path) in sorted(self._files.items())}

    def destinations(self) -> dict[Path, str]:
        return dict(self._files.values())

    def discard(self) -> None:
        """Remove what was written and never put in its place."""
        for written, _ in self._files.values():
            written.unlink(missing_ok=True)


def make_shard(job: Job, shard: Shard, state: Any, share: Share = ALL) -> CommitRecord:
    """Process and commit one shard, unless it is committed: then the winner's record is returned."""
    if job.folder.store.size(record_path(shard.id)):
        return job.folder.record(shard.id)
    started = time.monotonic()
    task = Task(job, shard, share)
    set_threads(job.stage.resources.threads)
    with job.folder.store.scratch() as folder:
        out = ShardWriter(shard.id, folder)
        try:
            with full_disk_told(folder):
                failpoint(job.stage.name, "process")
                counts = Counts(0, 0) if task.input_failed else _process(task, out, state)
                return _commit(task, out, counts, started)
        except FileNotFoundError:
            # Another driver has finished the stage meanwhile and swept away what no record names.
            if not job.folder.store.size(record_path(shard.id)):
                raise
            return job.folder.record(shard.id)
        finally:
            out.discard()


def reject_shard(job: Job, shard: Shard, cause: str) -> CommitRecord | None:
    """Commit a shard that failed for good as rejects. None: its stage cannot do without it."""
    task = Task(job, shard)
    pair_ids = job.stage.pair_ids(task)
    if pair_ids is None:
        return None
    with job.folder.store.scratch() as folder:
        out = ShardWriter(shard.id, folder)
        for pair_id in pair_ids:
            out.reject(pair_id, Reason.SHARD_FAILED, cause)
        return _commit(task, out, Counts(len(pair_ids), 0), time.monotonic())


def open_state(job: Job, shard: Shard) -> Any:
    """What a stage keeps in a process, opened for the first shard that the process makes.

    Raises NotOpened where that fails.
    """
    set_threads(job.stage.resources.threads)
    try:
        return job.stage.open(Task(job, shard))
    except (StorageError, RecipeError):
        raise
    except Exception as error:
        raise NotOpened(f"{type(error).__name__}: {error}") from error


def _process(task: Task, out: ShardWriter, state: Any) -> Counts:
    """Raises ShardFailed where rows are lost, or nothing is written: a shard without a file counts as a failed one."""
    counts = task.job.stage.process(task, out, state)
    where = f"{task.job.stage.name} {task.id}"
    lost = counts.rows_in - counts.rows_out - sum(out.rejected.values())
    if lost:
        sums = f"{counts.rows_in} rows in, {counts.rows_out} out, rejects {out.rejected}"
        raise ShardFailed(f"{where}: {sums}: {lost} lost")
    if not out.destinations():
        raise ShardFailed(f"{where}: no file was written")
    return counts


def _commit(task: Task, out: ShardWriter, counts: Counts, started: float) -> CommitRecord:
    job, store = task.job, task.job.folder.store
    files = out.finish()
    failpoint(job.stage.name, "written")
    store.put(out.destinations())
    failpoint(job.stage.name, "renamed")
    record = CommitRecord(
        stage=job.stage.name,
        shard=task.id,
        attempt=out.attempt,
        fingerprint=job.fingerprint,
        rejects_file=files.pop(REJECTS_FILE, None),
        files=files,
        inputs=task.inputs_read(),
        rows_in=counts.rows_in,
        rows_out=counts.rows_out,
        rejects=out.rejected,
        metrics=dict(counts.metrics),
        conditions=dict(job.stage.conditions()),
        seconds=round(time.monotonic() - started, 3),
        host=socket.gethostname(),
    )
    if not store.create(record_path(task.id), record.model_dump_json(indent=1).encode()):
        winner = job.folder.record(task.id)
        if winner.attempt != out.attempt:  # equal: the answer to our own create was lost, and the client asked again
            store.delete(out.destinations().values())
        return winner
    failpoint(job.stage.name, "committed")
    return record


def _entry(written: Path, path: str) -> FileEntry:
    return FileEntry(path=path, bytes=written.stat().st_size, sha256=sha256_of_file(written))
