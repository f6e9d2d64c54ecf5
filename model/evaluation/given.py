"""The pictures that a person names: files, folders, globs, urls, and parquets of paths, of urls or of pictures.

What is named is listed first (where each picture lies), and then read; a batch run writes the list down in between.
"""

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.credentials import REFUSAL, holds_credentials, redact
from pipeline.errors import InputError
from pipeline.folders import files_below
from pipeline.reasons import Reason
from stages.download import DownloadRecipe, bodies_of

COLUMNS = ("path", "url", "jpeg")
"""What a parquet may say of its pictures, one of them: where each lies, or its bytes (of any format that is read)."""

AT_ONCE = 64  # urls that are fetched together, and rows that are read


@dataclass(frozen=True)
class Place:
    """Where a picture lies."""

    name: str  # as it is told of
    at: str  # path or url
    row: int | None = None  # of a parquet of pictures that lies there; None: the file is the picture


@dataclass(frozen=True)
class Given:
    """body: the bytes as they are; None: there are none, and `fault` says why: a reason and its detail."""

    name: str
    body: bytes | None
    fault: str = ""


def pictures(named: Sequence[str], fetch: DownloadRecipe) -> Iterator[Given]:
    """In the order named; of a folder every file below it that is not hidden, by path; of a parquet every row.

    fetch: the bounds for urls and files. Raises InputError as `check` does.
    """
    check(named)
    return read((place for name in named for place in places(name)), fetch)


def check(named: Sequence[str]) -> None:
    """Without going through folders. Raises InputError where a name is that of nothing, a parquet has none of COLUMNS
    or several, or a url holds credentials."""
    for name in named:
        if holds_credentials(name):
            raise InputError(f"{redact(name)}: {REFUSAL}")
        if _is_parquet(name):
            _column(name)
        elif not _is_url(name) and not Path(name).exists() and not _matching(name):
            raise InputError(f"{name} is no file, folder, glob that matches, or url")


def places(name: str) -> Iterator[Place]:
    """Raises InputError where a folder or a parquet holds none."""
    found = _rows(name) if _is_parquet(name) else (Place(each, each) for each in _names(name))
    first = next(found, None)
    if first is None:
        raise InputError(f"{name} holds no picture")
    yield first
    yield from found


def read(listed: Iterable[Place], fetch: DownloadRecipe) -> Iterator[Given]:
    """In order; no more than AT_ONCE bodies are in memory."""
    for (of_parquet, is_url, at), some in groupby(listed, _kind):
        if of_parquet:
            yield from _of_parquet(at, some)
        elif is_url:
            while urls := list(islice(some, AT_ONCE)):
                yield from _fetched(urls, fetch)
        else:
            yield from (_of_file(place, fetch.max_bytes) for place in some)


def _kind(place: Place) -> tuple[bool, bool, str]:
    of_parquet = place.row is not None
    return of_parquet, _is_url(place.at), place.at if of_parquet else ""


def _is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _is_parquet(name: str) -> bool:
    return name.endswith(".parquet") and Path(name).is_file()


def _matching(name: str) -> list[str]:
    return sorted(glob.glob(name, recursive=True))


def _names(name: str) -> Iterator[str]:
    if Path(name).is_dir():
        return map(str, files_below(Path(name)))
    return iter([name] if _is_url(name) or Path(name).exists() else _matching(name))


def _column(path: str) -> str:
    """Raises InputError where the file has none of COLUMNS or several, or of another type."""
    try:
        types = {field.name: field.type for field in pq.read_schema(path)}
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no parquet that can be read: {error}") from None
    found = [name for name in COLUMNS if name in types]
    if len(found) != 1:
        raise InputError(
            f"{path} has columns {', '.join(types)}; allowed is one of {', '.join(COLUMNS)}: where each picture lies, "
            "or its bytes"
        )
    (name,) = found
    if not (name == "jpeg" and _is_bytes(types[name]) or name != "jpeg" and _is_text(types[name])):
        raise InputError(f"{path}: column {name} is {types[name]}; path and url are text, jpeg is binary")
    return name


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _rows(path: str) -> Iterator[Place]:
    column = _column(path)
    if column == "jpeg":
        yield from (Place(f"{path}#{row}", path, row) for row in range(pq.read_metadata(path).num_rows))
        return
    for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches(columns=[column], use_threads=False):
        for name in batch.column(0).to_pylist():
            yield Place(name or "", name or "")


def _of_parquet(path: str, some: Iterable[Place]) -> Iterator[Given]:
    bodies: Iterator[tuple[int, bytes | None]] = iter(())
    last = -1
    for place in some:
        assert place.row is not None, "of a parquet"
        if last < 0 or place.row <= last:
            bodies = _bodies(path, place.row)
        last = place.row
        body = next((body for row, body in bodies if row == last), None)
        yield Given(place.name, body, "" if body else f"{Reason.EMPTY_BODY}: no bytes in that row")


def _bodies(path: str, first: int) -> Iterator[tuple[int, bytes | None]]:
    """With their rows, from the row group on that holds the first."""
    file, row = pq.ParquetFile(path, pre_buffer=False), 0
    for group in range(file.num_row_groups):
        after = row + file.metadata.row_group(group).num_rows
        if after > first:
            batches = file.iter_batches(AT_ONCE, row_groups=[group], columns=["jpeg"], use_threads=False)
            yield from enumerate((body for batch in batches for body in batch.column(0).to_pylist()), row)
        row = after


def _fetched(some: Sequence[Place], fetch: DownloadRecipe) -> Iterator[Given]:
    for place, body in zip(some, bodies_of([place.at for place in some], fetch), strict=True):
        yield Given(place.name, body) if isinstance(body, bytes) else Given(place.name, None, body)


def _of_file(place: Place, max_bytes: int) -> Given:
    try:
        with Path(place.at).open("rb") as file:
            body = file.read(max_bytes + 1)
    except OSError as error:
        return Given(place.name, None, f"{Reason.MISSING_FILE}: {error.strerror}")
    if len(body) > max_bytes:
        return Given(place.name, None, f"{Reason.TOO_MANY_BYTES}: more than {max_bytes:,} bytes")
    return Given(place.name, body) if body else Given(place.name, None, f"{Reason.EMPTY_BODY}: 0 bytes")
