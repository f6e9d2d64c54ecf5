"""Pictures that need no network: files, and members of tars by offset. They pass the same checks as fetched ones."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from pipeline.reasons import Reason
from stages.download.fetch import Fetched


def read_local(rows: Sequence[Mapping[str, Any]], max_bytes: int) -> Iterator[Fetched]:
    for index, row in enumerate(rows):
        if row["local_path"] is not None:
            yield _read(index, row, max_bytes)


def _read(index: int, row: Mapping[str, Any], max_bytes: int) -> Fetched:
    started = time.monotonic()
    body, reason, detail = None, None, ""
    try:
        with _open(row["local_path"]) as file:
            file.seek(row["local_offset"] or 0)
            body = file.read(min(row["local_bytes"] or max_bytes + 1, max_bytes + 1))
    except OSError as error:
        reason, detail = Reason.MISSING_FILE, f"{row['local_path']}: {error.strerror or 'cannot be read'}"
    if body is not None and len(body) > max_bytes:
        body, reason, detail = None, Reason.TOO_MANY_BYTES, f"more than {max_bytes:,} bytes"
    elif body == b"":
        body, reason, detail = None, Reason.EMPTY_BODY, "0 bytes"
    return Fetched(index, body, reason, detail, None, 1000 * (time.monotonic() - started))


def _open(path: str) -> BinaryIO:
    """An absolute path is one, whatever it holds; anything else is an fsspec url."""
    return Path(path).open("rb") if path.startswith("/") else cast(BinaryIO, fsspec.open(path, "rb").open())
