"""img2dataset's webdataset layout: a tar of the successes and a table of all rows, in row order whatever came first.

A picture waits in memory until all rows before it have ended, which is soon unless one url uses up its deadline.
"""

import json
import tarfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import pyarrow as pa

from pipeline.reasons import Reason
from pipeline.schemas import DOWNLOADED
from pipeline.tars import add_member
from pipeline.writer import ShardWriter
from stages.download.fetch import Fetched
from stages.download.images import Stored

IN_THE_TAR = ("key", "url", "caption", "status", "width", "height", "original_width", "original_height", "sha256")


class ShardLayout:
    def __init__(self, out: ShardWriter, rows: Sequence[Mapping[str, Any]]) -> None:
        self._out, self._rows = out, rows
        self._tar = tarfile.open(out.file("images", "{stem}.tar"), "w")  # noqa: SIM115 - closed in __exit__
        self._waiting: dict[int, tuple[dict[str, Any], bytes | None]] = {}
        self._table: list[dict[str, Any]] = []
        self.num_stored = 0
        self.fetched_bytes = 0

    def __enter__(self) -> "ShardLayout":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()
        if kind is None:
            self._out.table("pairs", "{stem}.parquet", pa.Table.from_pylist(self._table, schema=DOWNLOADED))

    def succeed(self, fetched: Fetched, stored: Stored) -> None:
        row = self._row(fetched) | {
            "status": "success",
            "width": stored.width,
            "height": stored.height,
            "original_width": stored.original_width,
            "original_height": stored.original_height,
            "sha256": stored.sha256,
            "stored_sha256": stored.stored_sha256,
            "phash": stored.phash,
        }
        self.num_stored += 1
        self._add(fetched.index, row, stored.jpeg)

    def fail(self, fetched: Fetched, reason: Reason, detail: str) -> None:
        status = "failed_to_download" if fetched.body is None else "failed_to_resize"
        row = self._row(fetched) | {"status": status, "error_message": detail, "reason": reason.value}
        self._add(fetched.index, row, None)

    def _row(self, fetched: Fetched) -> dict[str, Any]:
        given = self._rows[fetched.index]
        self.fetched_bytes += len(fetched.body or b"")
        return {
            "key": given["pair_id"],
            **{name: given[name] for name in ("url", "caption", "source", "image_id", "nsfw", "watermark")},
            "http_status": fetched.http_status,
            "bytes": None if fetched.body is None else len(fetched.body),
            "fetch_ms": fetched.fetch_ms,
        }

    def _add(self, index: int, row: dict[str, Any], jpeg: bytes | None) -> None:
        assert index not in self._waiting, f"row {index} ended twice"
        self._waiting[index] = (row, jpeg)
        while len(self._table) in self._waiting:
            self._append(*self._waiting.pop(len(self._table)))

    def _append(self, row: dict[str, Any], jpeg: bytes | None) -> None:
        if jpeg is None:
            self._out.reject(row["key"], Reason(row["reason"]), row["error_message"])
        else:
            row["image_offset"], row["image_bytes"] = add_member(self._tar, f"{row['key']}.jpg", jpeg), len(jpeg)
            add_member(self._tar, f"{row['key']}.txt", row["caption"].encode())
            told = {name: row[name] for name in IN_THE_TAR}
            add_member(self._tar, f"{row['key']}.json", json.dumps(told, ensure_ascii=False).encode())
        self._table.append(row)
