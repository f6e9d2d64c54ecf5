"""An object store on a bad day: a folder behind fsspec that answers late, and at times with an error.

`faulty:///absolute/folder` is served once this module is imported. As in an object store an object appears whole,
there is no rename and no folder, and `mode="create"` makes an object only where there is none. The options of
FaultyStore come by fsspec's own way, as JSON in the environment variable FSSPEC_FAULTY, so that processes started
later have them too.
"""

import contextlib
import errno
import itertools
import os
import random
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import fsspec
import numpy as np
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

LATENCY_S = 0.02  # mean of one request
PAGE = 1000  # keys in one answer of a listing
UPLOADING = ".uploading-"  # how the name of an object that is not yet there begins
Answer = TypeVar("Answer")
_opened = itertools.count()


@dataclass(frozen=True)
class CallCounts:
    """What the store was asked."""

    calls: int = 0
    refused: int = 0  # errors raised in place of the effect
    lost: int = 0  # errors raised after it
    waited_us: int = 0

    @classmethod
    def of(cls, files: Iterable[Path]) -> "CallCounts":
        counts = [np.fromfile(file, np.int64) for file in files]
        return cls(*map(int, np.sum(counts, axis=0))) if counts else cls()


class FaultyStore(AbstractFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """latency_s: mean of one request, drawn evenly from half to one and a half; page_s: of a listing's page on top;
    a listing fails as one, because clients repeat its pages by themselves.

    error_rate: share of the requests that raise EBUSY, as s3fs does for a throttled one, half of them before the effect
    and half after it. seed: each process draws its own sequence from it. count_in: a folder for counts, in files
    named `process-…` that are mapped into memory so that they outlast a kill.
    """

    protocol = "faulty"

    def __init__(
        self,
        *,
        latency_s: float = LATENCY_S,
        page_s: float = 0.1,
        error_rate: float = 0.005,
        seed: int = 0,
        count_in: str = "",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.latency_s, self.page_s, self.error_rate = latency_s, page_s, error_rate
        self._random = random.Random(f"{seed} {os.getpid()} {next(_opened)}")
        self._lock = threading.Lock()
        self._counts = np.zeros(4, np.int64)
        if count_in:
            file = Path(count_in, f"{os.getpid()}-{secrets.token_hex(8)}")
            self._counts = np.memmap(file, np.int64, "w+", shape=(4,))

    def _request(self, effect: Callable[[], Answer], extra_s: float = 0) -> Answer:
        with self._lock:
            draw, wait_s = self._random.random(), self.latency_s * self._random.uniform(0.5, 1.5) + extra_s
            refused, lost = draw < self.error_rate / 2, self.error_rate / 2 <= draw < self.error_rate
            self._counts += (1, refused, lost, int(1e6 * wait_s))
        time.sleep(wait_s)
        if refused:
            raise OSError(errno.EBUSY, "please reduce your request rate (injected, before the effect)")
        answer = effect()
        if lost:
            raise OSError(errno.EBUSY, "please reduce your request rate (injected, after the effect)")
        return answer

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return self._request(lambda: _info(self._strip_protocol(path)))

    def find(self, path: str, detail: bool = False, **options: Any) -> Any:  # noqa: FBT001, FBT002 - fsspec's signature
        top = Path(self._strip_protocol(path))
        names = sorted(
            str(Path(folder, name))
            for folder, _, files in os.walk(top)
            for name in files
            if not name.startswith(UPLOADING)
        )
        found = self._request(lambda: _infos(names), (1 + len(names) // PAGE) * self.page_s)
        return found if detail else list(found)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        return self._request(lambda: Path(self._strip_protocol(path)).read_bytes()[start:end])

    def pipe_file(
        self, path: str, value: bytes, mode: Literal["overwrite", "create"] = "overwrite", **options: Any
    ) -> None:
        self._request(lambda: self._appear(path, lambda written: written.write_bytes(value), mode))

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        self._request(lambda: self._appear(rpath, lambda written: shutil.copyfile(lpath, written), "overwrite"))

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        self._request(lambda: shutil.copyfile(self._strip_protocol(rpath), lpath))

    def rm_file(self, path: str) -> None:
        self._request(lambda: Path(self._strip_protocol(path)).unlink())

    def _appear(self, path: str, write: Callable[[Path], object], mode: Literal["overwrite", "create"]) -> None:
        target = Path(self._strip_protocol(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        written = target.with_name(f"{UPLOADING}{secrets.token_hex(8)}")
        write(written)
        if mode == "overwrite":
            written.replace(target)
            return
        try:
            os.link(written, target)
        finally:
            written.unlink()

    def _open(self, path: str, mode: str = "rb", **options: Any) -> "_FaultyFile":
        return _FaultyFile(self, path, mode, cache_type="readahead")


class _FaultyFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec is untyped
    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start, end)
        return data


@contextlib.contextmanager
def counting(**options: float) -> Iterator[Callable[[], CallCounts]]:
    """Stores that this process opens meanwhile have these options; what is given tells their calls so far."""
    conf = fsspec.config.conf
    before = conf.get(FaultyStore.protocol, {})
    with tempfile.TemporaryDirectory() as folder:
        conf[FaultyStore.protocol] = options | {"count_in": folder}
        try:
            yield lambda: CallCounts.of(Path(folder).iterdir())
        finally:
            conf[FaultyStore.protocol] = before


def _info(path: str) -> dict[str, Any]:
    if Path(path).is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return {"name": path, "size": Path(path).stat().st_size, "type": "file"}


def _infos(paths: list[str]) -> dict[str, dict[str, Any]]:
    """Of those that are still there."""
    return {path: _info(path) for path in paths if Path(path).is_file()}


fsspec.register_implementation(FaultyStore.protocol, FaultyStore, clobber=True)
