"""Checkpoints of a stage: whole or not at all, on a disk or any fsspec url.

    checkpoints/<update>-<attempt>/…    model/ (as model.checkpoint writes it), optimizer.safetensors, state.json
    checkpoints/<update>.json           written last: the files with their sizes and checksums
    finished.json                       written at the stage's end: which checkpoint is its result
    results/<update>                    the same, and stays: such a checkpoint is never pruned

Only what a record names is a checkpoint; what a killed process left behind is swept with the next one.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from model.checkpoint import Reference
from pipeline.checksums import sha256_of_file
from pipeline.commits import FileEntry, misfit
from pipeline.errors import InputError, PipelineError, RecipeError
from pipeline.recipe import Json, Section
from pipeline.storage import SCRATCH, LocalStore, Store, open_store

FOLDER, FINISHED, RESULTS = "checkpoints", "finished.json", "results"
MODEL, STATE = "model", "state.json"  # of a checkpoint
KEY_ENCODERS = "key_encoders"  # of its state
ALL_MADE, NO_BETTER = "all updates are made", "no better any more"  # why a stage is finished


class Record(Section):
    update: int  # as many updates are in the weights
    folder: str  # below the stage's
    files: tuple[FileEntry, ...]  # paths below the folder
    score: float | None = None  # of its evaluation: the smallest is the best


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
        self._store.create(f"{RESULTS}/{update:08d}", why.encode())
        self._store.create(FINISHED, Finished(update=update, why=why).model_dump_json().encode())

    def records(self) -> list[Record]:
        """Of whole checkpoints, oldest first; all of them are read anew."""
        names = [name for name, size in self._store.list(FOLDER).items() if _is_record(name) and size]
        found = (Record.model_validate_json(self._store.read(f"{FOLDER}/{name}")) for name in names)
        return sorted(found, key=lambda record: record.update)

    def latest(self) -> Record | None:
        return next(reversed(self.records()), None)

    def best(self) -> Record | None:
        return _best(self.records())

    @contextmanager
    def writing(self, update: int, score: float | None = None) -> Iterator[Path]:
        """A folder to write a checkpoint's files to; when the block ends they are one. Raises StorageError where there
        is no room, and PipelineError where somebody else is at work in the folder."""
        with self._store.scratch() as scratch, TemporaryDirectory(dir=scratch) as made:
            yield Path(made)
            self._commit(Path(made), update, score)

    @contextmanager
    def beside(self, folder: str) -> Iterator[Path]:
        """A folder to write other files to; when the block ends they are in that one of the stage's."""
        with self._store.scratch() as scratch, TemporaryDirectory(dir=scratch) as made:
            yield Path(made)
            self._store.put({path: f"{folder}/{path.name}" for path in Path(made).iterdir()})

    def _commit(self, made: Path, update: int, score: float | None) -> None:
        folder = f"{FOLDER}/{update:08d}-{secrets.token_hex(4)}"
        paths = sorted(path for path in made.rglob("*") if path.is_file())
        if not paths:
            raise PipelineError(f"{self.folder}: what was written is swept away: another training is at work there")
        entries = tuple(
            FileEntry(path=str(path.relative_to(made)), bytes=path.stat().st_size, sha256=sha256_of_file(path))
            for path in paths
        )
        self._store.put({path: f"{folder}/{entry.path}" for path, entry in zip(paths, entries, strict=True)})
        record = Record(update=update, folder=folder, files=entries, score=score)
        data, path = record.model_dump_json().encode(), _record_path(update)
        # An object store may not tell that it was this very call that made the file.
        if not self._store.create(path, data) and self._store.read(path) != data:
            raise PipelineError(f"{self.folder}/{path} is there already: another training is at work in that folder")

    def sweep(self) -> None:
        """Delete what killed processes left in the making; nobody else may be at work here."""
        empty = [f"{FOLDER}/{name}" for name, size in self._store.list(FOLDER).items() if _is_record(name) and not size]
        self._store.delete(empty)  # a power cut leaves them, no writer makes one
        if isinstance(self._store, LocalStore):
            shutil.rmtree(Path(self._store.root, SCRATCH), ignore_errors=True)

    def prune(self, keep: int) -> None:
        """Leave the last `keep`, the best, and every result, for later stages refer to its parts; delete the others'
        records first, and whatever no record names."""
        records = self.records()
        best = _best(records)
        spared = {int(update) for update in self._store.list(RESULTS)} | ({best.update} if best else set())
        spared |= {record.update for record in records[-keep:]}
        self._store.delete([_record_path(record.update) for record in records if record.update not in spared])
        # Read anew: another driver may have made one meanwhile.
        named = {f"{record.folder}/{entry.path}" for record in self.records() for entry in record.files}
        stray = [f"{FOLDER}/{name}" for name in self._store.list(FOLDER) if not _is_record(name)]
        self._store.delete([path for path in stray if path not in named])
        if isinstance(self._store, LocalStore):
            _remove_empty_folders(Path(self._store.root, FOLDER))

    @contextmanager
    def opened(self, record: Record, begin: str = "") -> Iterator[Path]:
        """Its files as local ones; begin: of their paths, of those that are wanted. Raises InputError where one is
        missing, or is not the one that was written."""
        wanted = [entry for entry in record.files if entry.path.startswith(begin)]
        for entry in wanted:
            path = f"{record.folder}/{entry.path}"
            self._refuse(record, misfit(path, self._store.size(path), entry.bytes))
        if isinstance(self._store, LocalStore):
            folder = Path(self._store.root, record.folder)
            self._check_sums(record, folder, wanted)
            yield folder
            return
        with TemporaryDirectory() as copied:
            for entry in wanted:
                self._copy(f"{record.folder}/{entry.path}", Path(copied, entry.path))
            self._check_sums(record, Path(copied), wanted)
            yield Path(copied)

    def state(self, record: Record) -> dict[str, Json]:
        """Raises InputError as `opened` does."""
        with self.opened(record, STATE) as folder:
            found: dict[str, Json] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return found

    def seen(self, reference: Reference) -> Reference:
        """As a checkpoint's model names it: relative within the root of all stages, so that the root can be moved."""
        if not isinstance(self._store, LocalStore):
            return reference
        folder, place = Path(self._store.root).resolve(), Path(reference.place).resolve()
        if not place.is_relative_to(folder.parent):
            return reference
        return replace(reference, place=os.path.relpath(place, folder / FOLDER / "any" / MODEL))

    def refuse_small_disk(self, checkpoint_bytes: int, kept: int) -> None:
        """Raises RecipeError where the checkpoints that are kept, and the one in the making, do not fit on the disk of
        a local folder."""
        if not isinstance(self._store, LocalStore):
            return
        path = Path(self._store.root)
        free = shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists())).free
        due = checkpoint_bytes * (kept + 1) - sum(entry.bytes for record in self.records() for entry in record.files)
        if free < due:
            raise RecipeError(
                f"{self.folder} has {free:,} bytes free, and {kept + 1} checkpoints of about {checkpoint_bytes:,} "
                f"bytes need {due:,} more. Lower keep, or take another root"
            )

    def _copy(self, path: str, copied: Path) -> None:
        copied.parent.mkdir(parents=True, exist_ok=True)
        with self._store.open(path) as source, copied.open("wb") as target:
            shutil.copyfileobj(source, target)

    def _check_sums(self, record: Record, folder: Path, entries: Iterable[FileEntry]) -> None:
        for entry in entries:
            if sha256_of_file(folder / entry.path) != entry.sha256:
                self._refuse(record, f"{record.folder}/{entry.path} is another file than the one that was written")

    def _refuse(self, record: Record, fault: str | None) -> None:
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


def _best(records: Sequence[Record]) -> Record | None:
    """By the score; of those without one the last. records: oldest first."""
    scored = [record for record in records if record.score is not None]
    return min(scored, key=lambda record: record.score or 0.0) if scored else next(reversed(records), None)


def _is_record(name: str) -> bool:
    return "/" not in name and name.endswith(".json")


def _record_path(update: int) -> str:
    return f"{FOLDER}/{update:08d}.json"


def _remove_empty_folders(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
