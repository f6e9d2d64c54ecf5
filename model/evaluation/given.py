"""The pictures that a person names: files, folders, globs and urls."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pipeline.errors import InputError
from pipeline.folders import files_below
from stages.download import DownloadRecipe, bodies_of


@dataclass(frozen=True)
class Given:
    """body: the bytes as they are; None: there are none, and `fault` says why."""

    name: str
    body: bytes | None
    fault: str = ""


def pictures(named: Sequence[str], fetch: DownloadRecipe) -> Iterator[Given]:
    """In the order named; of a folder every file below it that is not hidden, by path.

    fetch: the bounds for urls. Raises InputError where a name is that of nothing.
    """
    for is_url, some in groupby(named, lambda name: name.startswith(("http://", "https://"))):
        if is_url:
            urls = list(some)
            for url, body in zip(urls, bodies_of(urls, fetch), strict=True):
                yield Given(url, body) if isinstance(body, bytes) else Given(url, None, body)
        else:
            for name in some:
                yield from map(_read, _files(name))


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        return files_below(path)
    found = [path] if path.exists() else [Path(each) for each in sorted(glob.glob(name, recursive=True))]
    if not found:
        raise InputError(f"{name} is no file, folder, glob that matches, or url")
    return found


def _read(path: Path) -> Given:
    try:
        return Given(str(path), path.read_bytes())
    except OSError as error:
        return Given(str(path), None, f"missing_file: {error.strerror}")
