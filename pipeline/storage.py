"""Where files lie: a local folder or any fsspec url. The commit protocol asks two things of storage: `create` (only if
absent: exactly one of several writers wins) and `put` (a finished file appears whole or not at all)."""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from pipeline.checksums import sha256_of_file
from pipeline.errors import InputError, RecipeError, StorageError

SCRATCH = "tmp"
LEFT_BY_A_FULL_DISK = 2**20  # bytes
SWEEPS = 5  # of a scratch folder by other drivers, that one write outlasts
CACHE_DIR = Path(os.environ.get("REVILM_CACHE", Path.home() / ".cache" / "revilm"))


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
        found = {}
        for path in Path(self.root, folder).rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    found[str(path.relative_to(Path(self.root, folder)))] = status.st_size
        return found

    def create(self, path: str, data: bytes) -> bool:
        """True: this call made the file. False: it was there already, untouched."""
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
            with self.scratch() as folder, (folder / secrets.token_hex(8)).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                move(Path(file.name))
                return
            except FileNotFoundError:  # another driver swept the folder just now
                if not attempts_left:
                    raise
            finally:
                Path(file.name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for files in the making, on the storage's own disk. Writers name theirs so that none collide."""
        folder = Path(self.root, SCRATCH)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder

    def put(self, finished: Mapping[Path, str]) -> None:
        """Move written files to their paths; on return they outlast a power cut."""
        for written, path in finished.items():
            with written.open("rb") as file:
                os.fsync(file.fileno())
            Path(self.root, path).parent.mkdir(parents=True, exist_ok=True)
            written.rename(Path(self.root, path))
        for folder in {Path(self.root, path).parent for path in finished.values()}:
            _sync_folder(folder)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            Path(self.root, path).unlink(missing_ok=True)

    def local(self, path: str, sha256: str) -> Path:
        """A path that can be memory-mapped."""
        return Path(self.root, path)


@dataclass(frozen=True)
class ObjectStore:
    """An fsspec url. Uploads appear when they are finished; records are created by conditional puts."""

    root: str

    @cached_property
    def _fs(self) -> Any:
        import fsspec

        try:
            # Another process's records must be seen, so listings are never cached.
            return fsspec.core.url_to_fs(self.root, use_listings_cache=False)[0]
        except (ImportError, ValueError) as error:
            raise RecipeError(f"{self.root} cannot be opened: {error} (for s3://: pip install '.[s3]')") from None

    def _full(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"

    def read(self, path: str) -> bytes:
        return cast(bytes, self._fs.cat_file(self._full(path)))

    def open(self, path: str) -> BinaryIO:
        return cast(BinaryIO, self._fs.open(self._full(path), "rb"))

    def size(self, path: str) -> int | None:
        try:
            return int(self._fs.info(self._full(path))["size"])
        except FileNotFoundError:
            return None

    def list(self, folder: str) -> dict[str, int]:
        top = self._fs._strip_protocol(self._full(folder)).rstrip("/") + "/"
        try:
            found = self._fs.find(top, detail=True)
        except FileNotFoundError:
            return {}
        return {name.removeprefix(top): int(info["size"]) for name, info in found.items()}

    def create(self, path: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(self._full(path), data, mode="create")
        except FileExistsError:
            return False
        return True

    def write(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(self._full(path), data)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)

    def put(self, finished: Mapping[Path, str]) -> None:
        for written, path in finished.items():
            self._fs.put_file(str(written), self._full(path))

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._full(path))

    def local(self, path: str, sha256: str) -> Path:
        """A copy in the cache folder, named by checksum and shared by the processes of a node."""
        cached = CACHE_DIR / sha256[:2] / f"{sha256}{Path(path).suffix}"
        if not cached.exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            size, free = self.size(path) or 0, shutil.disk_usage(cached.parent).free
            if size > free:
                raise InputError(f"{path} needs {size:,} bytes in {CACHE_DIR}, {free:,} are free; set REVILM_CACHE")
            with tempfile.TemporaryDirectory(dir=cached.parent) as made:
                self._fs.get_file(self._full(path), f"{made}/copy")
                if sha256_of_file(Path(made, "copy")) != sha256:
                    raise InputError(f"{self._full(path)} is not what its record says: its sha256 is another one")
                Path(made, "copy").rename(cached)
        return cached


Store = LocalStore | ObjectStore


def open_store(root: str) -> Store:
    """Raises RecipeError where the url holds credentials, without repeating them: they would reach logs and records."""
    if holds_credentials(root):
        raise RecipeError("a url holds credentials; give them through the environment or the cloud's own files")
    root = absolute_root(root)
    return ObjectStore(root) if "://" in root else LocalStore(root)


def absolute_root(root: str) -> str:
    """A url, or an absolute path: what may be written down and read from another folder."""
    if root.startswith("file://"):
        return urlsplit(root).path
    return root if "://" in root else str(Path(root).absolute())


def holds_credentials(url: str) -> bool:
    """A secret may hold slashes, and a chained url several addresses."""
    return re.search(r"://[^/@\s]*:[^@\s]*@", url) is not None


def disk_full(error: Exception, folder: Path) -> StorageError | None:
    """What to raise in an error's place where its cause is a full disk: libraries say that in many ways, or not."""
    free = shutil.disk_usage(folder).free
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)
    if not full and free > LEFT_BY_A_FULL_DISK:
        return None
    return StorageError(
        f"the disk of {folder} is full ({free:,} bytes free). What is done is kept: make room, and give the same "
        "command again."
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
