"""Where files lie: a local folder or any fsspec url. The commit protocol asks two things of storage: `create` (only if
absent: exactly one of several writers wins) and `put` (a finished file appears whole or not at all).

Every method raises StorageError where a disk is full or a store does not answer, for all its retries. An object store
that answers, and refuses (no such bucket, no permission, no credentials), is a RecipeError at once.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from pipeline.credentials import REFUSAL, holds_credentials
from pipeline.disk import files_below, full_disk_told, sync
from pipeline.errors import RecipeError
from pipeline.object_store import ObjectStore

SCRATCH = "tmp"
SWEEPS = 5  # of a scratch folder by other drivers, that one write outlasts


@dataclass(frozen=True)
class LocalStore:
    """A folder. Paths given to the methods are relative to it, with `/` between parts."""

    root: str

    def read(self, path: str) -> bytes:
        return Path(self.root, path).read_bytes()

    def open(self, path: str) -> BinaryIO:
        return Path(self.root, path).open("rb")

    def size(self, path: str) -> int | None:
        """Bytes, or None where there is no such file."""
        try:
            return Path(self.root, path).stat().st_size
        except FileNotFoundError:
            return None

    def list(self, folder: str) -> dict[str, int]:
        """Every file under a folder, at any depth: path below the folder → bytes. Others may be at work there: a file
        that goes away meanwhile is left out."""
        return dict(files_below(Path(self.root, folder)))

    def create(self, path: str, data: bytes) -> bool:
        """True: this call made the file. False: it was there already, untouched."""
        with full_disk_told(Path(self.root)):
            Path(self.root, path).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._place(data, lambda written: os.link(written, Path(self.root, path)))
        except FileExistsError:
            return False
        # The folder is not synced: a record that a power cut takes back is a shard that is made again.
        return True

    def write(self, path: str, data: bytes) -> None:
        """Whole, in place of what was there."""
        self._place(data, lambda written: written.rename(Path(self.root, path)))

    def _place(self, data: bytes, move: Callable[[Path], object]) -> None:
        for attempts_left in reversed(range(SWEEPS)):
            with self.scratch() as folder:
                written = folder / secrets.token_hex(8)
                try:
                    written.write_bytes(data)
                    sync(written)
                    move(written)
                    return
                except FileNotFoundError:  # another driver swept the folder just now
                    if not attempts_left:
                        raise
                finally:
                    written.unlink(missing_ok=True)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for files in the making, on the storage's own disk. Writers name theirs so that none collide."""
        folder = Path(self.root, SCRATCH)
        with full_disk_told(Path(self.root)):
            folder.mkdir(parents=True, exist_ok=True)
            yield folder

    def put(self, finished: Mapping[Path, str]) -> None:
        """Move written files to their paths; on return they outlast a power cut."""
        with full_disk_told(Path(self.root)):
            for written, path in finished.items():
                sync(written)
                Path(self.root, path).parent.mkdir(parents=True, exist_ok=True)
                written.rename(Path(self.root, path))
            for folder in {Path(self.root, path).parent for path in finished.values()}:
                sync(folder)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            Path(self.root, path).unlink(missing_ok=True)

    def local(self, path: str, sha256: str) -> Path:
        """A path that can be memory-mapped."""
        return Path(self.root, path)


Store = LocalStore | ObjectStore


def open_store(root: str) -> Store:
    """Raises RecipeError where the url holds credentials, without repeating them: they would reach logs and records."""
    if holds_credentials(root):
        raise RecipeError(REFUSAL)
    root = absolute_root(root)
    return ObjectStore(root) if "://" in root else LocalStore(root)


def absolute_root(root: str) -> str:
    """A url, or an absolute path: what may be written down and read from another folder."""
    if root.startswith("file://"):
        return urlsplit(root).path
    return root if "://" in root else str(Path(root).absolute())
