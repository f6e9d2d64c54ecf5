"""Checkpoints of a stage: whole or not at all, on a disk or any fsspec url.

    checkpoints/<update>-<attempt>/…    model/ (as model.checkpoint writes it), optimizer.safetensors, state.json
    checkpoints/<update>.json           written last: the files with their sizes and checksums
    finished.json                       written at the stage's end: which checkpoint is its result

Only what a record names is a checkpoint; what a killed process left behind is swept with the next one.
"""

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.checksums import sha256_of_file
from pipeline.commits import FileEntry, misfit
from pipeline.errors import InputError, StorageError
from pipeline.recipe import Json, Section
from pipeline.storage import SCRATCH, LocalStore, Store, open_store

FOLDER, FINISHED, STATE = "checkpoints", "finished.json", "state.json"


class Record(Section):
    update: int  # as many updates are in the weights
    folder: str  # below the stage's
    files: tuple[FileEntry, ...]  # paths below the folder
    score: float | None = None  # of the last evaluation: the smallest is the best


class Finished(Section):
    update: int
    why: str


class Checkpoints:
    """Of a stage's folder, a path or url."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._store: Store = open_store(folder)

    def finished(self) -> Finished | None:
        if self._store.size(FINISHED) is None:
            return None
        return Finished.model_validate_json(self._store.read(FINISHED))

    def finish(self, update: int, why: str) -> None:
        self._store.create(FINISHED, Finished(update=update, why=why).model_dump_json().encode())

    def records(self) -> list[Record]:
        """Of whole checkpoints, oldest first."""
        names = [name for name, size in self._store.list(FOLDER).items() if _is_record(name) and size]
        found = (Record.model_validate_json(self._store.read(f"{FOLDER}/{name}")) for name in names)
        return sorted(found, key=lambda record: record.update)

    def latest(self) -> Record | None:
        return max(self.records(), key=lambda record: record.update, default=None)

    def best(self) -> Record | None:
        """By the score; of those without one the last."""
        scored = [record for record in self.records() if record.score is not None]
        return min(scored, key=lambda record: record.score or 0.0) if scored else self.latest()

    @contextmanager
    def writing(self, update: int, score: float | None = None) -> Iterator[Path]:
        """A folder to write a checkpoint's files to; when the block ends they are one. Raises StorageError where there
        is no room."""
        with self._store.scratch() as scratch, TemporaryDirectory(dir=scratch) as made:
            yield Path(made)
            self._commit(Path(made), update, score)

    def _commit(self, made: Path, update: int, score: float | None) -> None:
        folder = f"{FOLDER}/{update:08d}-{secrets.token_hex(4)}"
        paths = sorted(path for path in made.rglob("*") if path.is_file())
        entries = tuple(
            FileEntry(path=str(path.relative_to(made)), bytes=path.stat().st_size, sha256=sha256_of_file(path))
            for path in paths
        )
        self._store.put({path: f"{folder}/{entry.path}" for path, entry in zip(paths, entries, strict=True)})
        record = Record(update=update, folder=folder, files=entries, score=score)
        self._store.create(_record_path(update), record.model_dump_json().encode())

    def sweep(self) -> None:
        """Delete what killed processes left in the making; nobody else may be at work here."""
        if isinstance(self._store, LocalStore):
            shutil.rmtree(Path(self._store.root, SCRATCH), ignore_errors=True)

    def prune(self, keep: int) -> None:
        """Leave the last `keep` and the best; delete the others' records first, and whatever no record names."""
        records, best = self.records(), self.best()
        for record in records[:-keep]:
            if best is None or record.update != best.update:
                self._store.delete([_record_path(record.update)])
        named = {f"{record.folder}/{entry.path}" for record in self.records() for entry in record.files}
        stray = [f"{FOLDER}/{name}" for name in self._store.list(FOLDER) if not _is_record(name)]
        self._store.delete([path for path in stray if path not in named])
        if isinstance(self._store, LocalStore):
            _remove_empty_folders(Path(self._store.root, FOLDER))

    @contextmanager
    def opened(self, record: Record) -> Iterator[Path]:
        """Its files as local ones. Raises InputError where one is missing or has another size."""
        self._check(record)
        if isinstance(self._store, LocalStore):
            yield Path(self._store.root, record.folder)
            return
        with TemporaryDirectory() as copied:
            for entry in record.files:
                path = Path(copied, entry.path)
                path.parent.mkdir(parents=True, exist_ok=True)
                with self._store.open(f"{record.folder}/{entry.path}") as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
            yield Path(copied)

    def state(self, record: Record) -> dict[str, Json]:
        found: dict[str, Json] = json.loads(self._store.read(f"{record.folder}/{STATE}"))
        return found

    def _check(self, record: Record) -> None:
        for entry in record.files:
            path = f"{record.folder}/{entry.path}"
            fault = misfit(path, self._store.size(path), entry.bytes)
            if fault:
                raise InputError(
                    f"{self.folder}/{fault}: delete {_record_path(record.update)} to go on from the one before it"
                )


def result_of(folder: str) -> tuple[Checkpoints, Record]:
    """The checkpoint that a finished stage came to. Raises InputError where the stage is not finished."""
    checkpoints = Checkpoints(folder)
    finished = checkpoints.finished()
    if finished is None:
        raise InputError(f"{folder} is not finished (no {FINISHED}): run its stage of jobs/train.py to the end first")
    for record in checkpoints.records():
        if record.update == finished.update:
            return checkpoints, record
    raise InputError(f"{folder}/{FINISHED} names checkpoint {finished.update}, which is not there any more")


def free_bytes(folder: str) -> int | None:
    """On the disk of a local folder."""
    if not isinstance(open_store(folder), LocalStore):
        return None
    path = Path(folder)
    return shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists())).free


def refuse_small_disk(folder: str, checkpoint_bytes: int, kept: int) -> None:
    """Raises StorageError where the checkpoints that are kept, and the one in the making, do not fit."""
    free, due = free_bytes(folder), checkpoint_bytes * (kept + 1)
    if free is not None and free < due:
        raise StorageError(
            f"{folder} has {free:,} bytes free; {kept + 1} checkpoints of {checkpoint_bytes:,} bytes need {due:,}. "
            "Lower keep, or take another root"
        )


def _is_record(name: str) -> bool:
    return "/" not in name and name.endswith(".json")


def _record_path(update: int) -> str:
    return f"{FOLDER}/{update:08d}.json"


def _remove_empty_folders(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
