"""Pictures that need no network: files, and members of tars by offset. They pass the same checks as fetched ones."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
        with fsspec.open(row["local_path"], "rb") as file:
            file.seek(row["local_offset"] or 0)
            body = file.read(max_bytes + 1 if row["local_bytes"] is None else row["local_bytes"])
    except FileNotFoundError:
        reason, detail = Reason.MISSING_FILE, f"{row['local_path']} does not exist"
    if body is not None and len(body) > max_bytes:
        body, reason, detail = None, Reason.TOO_MANY_BYTES, f"more than {max_bytes:,} bytes"
    elif body == b"":
        body, reason, detail = None, Reason.EMPTY_BODY, "0 bytes"
    return Fetched(index, body, reason, detail, None, 1000 * (time.monotonic() - started))
