"""Files under an fsspec url. What fails in passing is asked for again; what a store refuses is said at once."""

import contextlib
import errno
import io
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from pipeline.checksums import sha256_of_file
from pipeline.credentials import redact
from pipeline.disk import FULL, alone, full_disk_told, sync
from pipeline.errors import InputError, RecipeError, StorageError

Answer = TypeVar("Answer")

CACHE_DIR = Path(os.environ.get("REVILM_CACHE", Path.home() / ".cache" / "revilm"))
PATIENCE_S = 30.0  # for a store that does not answer
REFUSED_S = 3.0  # for a refusal that a busy server may have meant otherwise
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
READ_AHEAD = 4 << 20  # bytes; little for one picture of a tar, and enough to read a tar from end to end at full speed
REFUSALS = (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG, errno.EMSGSIZE, errno.EREMCHG)
"""As fsspec's clients translate what no retry changes: a wrong name, a wrong region, a request that is not known."""


@dataclass(frozen=True)
class ObjectStore:
    """An fsspec url. Uploads appear when they are finished; records are created by conditional puts."""

    root: str
    patience_s: float = PATIENCE_S

    def __reduce__(self) -> tuple[Any, ...]:
        """The client stays in its process: it may hold keys that fsspec's own configuration gave it."""
        return ObjectStore, (self.root, self.patience_s)

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

    def _ask(self, path: str, ask: Callable[[Any, str], Answer]) -> Answer:
        """The answer to a request (of the file system and the full path), which is made again where it fails in
        passing. FileNotFoundError and FileExistsError are answers."""
        fs, url, pause = self._fs, self._full(path), FIRST_PAUSE_S
        give_up, soon = time.monotonic() + self.patience_s, time.monotonic() + min(REFUSED_S, self.patience_s)
        while True:
            try:
                return ask(fs, url)
            except Exception as error:
                said = f"({type(error).__name__}: {redact(str(error))})"
                if _refuses(error) and not (_may_be_passing(error) and time.monotonic() < soon):
                    raise RecipeError(
                        f"{url} is refused {said}: check the url, and the credentials in the environment or in the "
                        "cloud's own files"
                    ) from None
                if not _refuses(error) and not _fails_in_passing(error):
                    raise
                if pause > FIRST_PAUSE_S and time.monotonic() > give_up:  # at least twice, however long one try takes
                    raise StorageError(
                        f"{url} does not answer {said}. What is done is kept, and the same command continues."
                    ) from None
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _send(self, path: str, send: Callable[[Any, str], object]) -> None:
        try:
            self._ask(path, send)
        except FileNotFoundError as error:
            raise RecipeError(f"{self._full(path)} cannot be written: {error}; make the bucket first") from None

    def read(self, path: str) -> bytes:
        try:
            return self.read_range(path, 0, None)  # as a range: s3fs else asks for the size first
        except RecipeError:
            if self.size(path) != 0:
                raise
            return b""  # no range of an empty file can be satisfied

    def read_range(self, path: str, start: int, stop: int | None) -> bytes:
        return self._ask(path, lambda fs, url: cast(bytes, fs.cat_file(url, start=start, end=stop)))

    def open(self, path: str) -> BinaryIO:
        size = self.size(path)
        if size is None:
            raise FileNotFoundError(self._full(path))
        return cast(BinaryIO, io.BufferedReader(_Remote(self, path, size), READ_AHEAD))

    def size(self, path: str) -> int | None:
        try:
            return self._ask(path, lambda fs, url: int(fs.info(url)["size"]))
        except FileNotFoundError:
            return None

    def list(self, folder: str) -> dict[str, int]:
        top = self._fs._strip_protocol(self._full(folder)).rstrip("/") + "/"
        try:
            found = self._ask(folder, lambda fs, _: cast(dict[str, Any], fs.find(top, detail=True)))
        except FileNotFoundError:
            return {}
        return {name.removeprefix(top): int(info["size"]) for name, info in found.items()}

    def create(self, path: str, data: bytes) -> bool:
        """False also where an attempt of this very call made the file, and its answer was lost."""
        try:
            self._send(path, lambda fs, url: fs.pipe_file(url, data, mode="create"))
        except FileExistsError:
            return False
        except RecipeError:
            if self.size(path) is None:
                raise
            return False  # not every store that speaks S3 says which precondition failed
        return True

    def write(self, path: str, data: bytes) -> None:
        self._send(path, lambda fs, url: fs.pipe_file(url, data))

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        with full_disk_told(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as made:
            yield Path(made)

    def put(self, finished: Mapping[Path, str]) -> None:
        for written, path in finished.items():
            self._put(str(written), path)

    def _put(self, written: str, path: str) -> None:
        self._send(path, lambda fs, url: fs.put_file(written, url))

    def delete(self, paths: Iterable[str]) -> None:
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(self._delete, paths):
                pass

    def _delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask(path, lambda fs, url: fs.rm_file(url))

    def local(self, path: str, sha256: str) -> Path:
        """A copy in the cache folder, named by checksum, fetched once and shared by the processes of a node."""
        cached = CACHE_DIR / sha256[:2] / f"{sha256}{Path(path).suffix}"
        if cached.exists():
            return cached
        with full_disk_told(CACHE_DIR):
            cached.parent.mkdir(parents=True, exist_ok=True)
            with alone(cached.with_suffix(".lock")):
                if not cached.exists():
                    self._fetch(path, sha256, cached)
        return cached

    def _fetch(self, path: str, sha256: str, cached: Path) -> None:
        part = cached.with_suffix(".part")  # one that a dead process left is written over
        size, free = self.size(path) or 0, shutil.disk_usage(cached.parent).free
        if size > free:
            raise StorageError(f"{path} needs {size:,} bytes in {CACHE_DIR}, {free:,} are free; set REVILM_CACHE")
        try:
            self._ask(path, lambda fs, url: fs.get_file(url, str(part)))
            if sha256_of_file(part) != sha256:
                raise InputError(f"{self._full(path)} is not what its record says: its sha256 is another one")
            sync(part)
            part.rename(cached)
        finally:
            part.unlink(missing_ok=True)


class _Remote(io.RawIOBase):
    """A file of an object store, read by ranges: a read that fails is made again like every other request."""

    def __init__(self, store: ObjectStore, path: str, size: int) -> None:
        self._store, self._path, self._size, self._at = store, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._next(self._size)  # in one request: Python's own asks for 8 KiB at a time

    def _next(self, size: int) -> bytes:
        stop = min(self._at + size, self._size)
        data = self._store.read_range(self._path, self._at, stop) if stop > self._at else b""
        self._at += len(data)
        return data


def _refuses(error: Exception) -> bool:
    """The store, or its client, says no and will say so again. A client's own classes are known by their names, so that
    no client need be imported."""
    if isinstance(error, OSError):
        return isinstance(error, PermissionError) or error.errno in REFUSALS
    refused = re.search("Credential|Auth|Token|Profile|Region|Validation", type(error).__name__)
    return isinstance(error, ValueError | NotImplementedError) or refused is not None


def _may_be_passing(error: Exception) -> bool:
    """An upload that broke on its way is a bad request too, and a busy metadata service is no credentials."""
    return not isinstance(error, PermissionError | NotImplementedError)


def _fails_in_passing(error: Exception) -> bool:
    """Other errors of the system, and a client's own classes. Python's own are faults of a program."""
    if isinstance(error, OSError):
        return not isinstance(error, FileNotFoundError | FileExistsError) and error.errno not in FULL
    return type(error).__module__ != "builtins"
