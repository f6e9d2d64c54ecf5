"""The files of a source: found by path, glob or fsspec url, opened as one stream of bytes."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from pipeline.errors import InputError

LFS_POINTER = b"version https://git-lfs"
GZIP = b"\x1f\x8b"
END_BYTES = 1 << 20


@dataclass(frozen=True)
class ListFile:
    """One list and how the recipe wants it read. Only the preset `sbu_text` has two paths, of line-aligned files."""

    paths: tuple[str, ...]  # absolute, or urls
    sizes: tuple[int, ...]  # bytes
    columns: Mapping[str, str] = field(default_factory=dict)  # field of a Raw → the source's name for it
    optional: frozenset[str] = frozenset()  # fields whose column may be missing
    split: str | None = None
    folder: str | None = None  # absolute; of the pictures

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(base_name(path) for path in self.paths)

    @property
    def name(self) -> str:
        return " + ".join(self.names)

    @property
    def suffix(self) -> str:
        """In lower case, less `.gz`."""
        return PurePosixPath(self.paths[0].lower().removesuffix(".gz")).suffix


def base_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def absolute(path: str) -> str:
    """Workers have other working folders than the driver."""
    fs, inner = _locate(path)
    return _spell(fs, inner)


def matches(pattern: str) -> dict[str, int]:
    """The files that a path or a glob names: absolute path or url → bytes. A file that bears the name itself wins."""
    fs, inner = _locate(pattern)
    if fs.isfile(inner):
        return {_spell(fs, inner): fs.size(inner)}
    found = fs.glob(inner, detail=True)
    return {_spell(fs, name): info["size"] for name, info in found.items() if info["type"] == "file"}


def sizes_now(file: ListFile) -> tuple[int, ...]:
    return tuple(sum(matches(path).values()) for path in file.paths)


@lru_cache(maxsize=4096)
def sha256_of_ends(path: str, size: int) -> str:
    """Of the first and the last MiB."""
    with _open_stored(path) as file:
        digest = hashlib.sha256(file.read(END_BYTES))
        file.seek(max(0, size - END_BYTES))
        digest.update(file.read(END_BYTES))
    return digest.hexdigest()


def read_chunks(path: str) -> Iterator[bytes]:
    """The bytes as stored, compressed or not."""
    with _open_stored(path) as file:
        while chunk := file.read(1 << 20):
            yield chunk


@contextmanager
def open_list(path: str) -> Iterator[BinaryIO]:
    """Seekable; `.gz` is decompressed, so a seek there reads everything before it.

    Raises InputError where the bytes are a Git LFS pointer, or are compressed and damaged, or belie their name.
    """
    with _open_stored(path) as stored:
        _refuse_disguise(path, stored)
        if not path.endswith(".gz"):
            yield stored
            return
        try:
            yield cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stored)), 1 << 18))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{base_name(path)} is damaged ({error}); fetch it again") from None


def _refuse_disguise(path: str, stored: BinaryIO) -> None:
    start = stored.read(len(LFS_POINTER))
    stored.seek(0)
    if not start:
        raise InputError(f"{base_name(path)} is empty (0 bytes)")
    if start == LFS_POINTER:
        raise InputError(f"{base_name(path)} is a Git LFS pointer, not the data; `git lfs pull` fetches it")
    if start.startswith(GZIP) and not path.endswith(".gz"):
        raise InputError(f"{base_name(path)} is compressed by gzip; its name should end in .gz (tars: unpack it)")


@contextmanager
def _open_stored(path: str) -> Iterator[BinaryIO]:
    fs, inner = _locate(path)
    if _is_local(fs):
        with Path(inner).open("rb") as file:
            yield file
    else:
        with fs.open(inner, "rb") as remote, io.BufferedReader(remote, 1 << 20) as buffered:
            yield cast(BinaryIO, buffered)


def _locate(path: str) -> tuple[Any, str]:
    import fsspec

    found: tuple[Any, str] = fsspec.core.url_to_fs(path)
    return found


def _spell(fs: Any, inner: str) -> str:
    return inner if _is_local(fs) else str(fs.unstrip_protocol(inner))


def _is_local(fs: Any) -> bool:
    return "file" in ([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)
