"""img2dataset's webdataset layout: a tar of the successes and a table of all rows, in row order whatever came first.

Pictures wait on disk until the shard is through: how early a row ends depends on its host's patience, not on its place.
"""

import json
import tarfile
import tempfile
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
    """Files are written when the block ends without an error; then every row has to have ended."""

    def __init__(self, out: ShardWriter, rows: Sequence[Mapping[str, Any]]) -> None:
        self._out, self._rows = out, rows
        self._tar_path = out.file("images", "{stem}.tar")
        self._spool = tempfile.TemporaryFile(dir=self._tar_path.parent)  # noqa: SIM115 - closed in __exit__
        self._places: dict[int, tuple[int, int]] = {}  # row → where its JPEG begins in the spool, and its bytes
        self._ended: dict[int, dict[str, Any]] = {}
        self.fetched_bytes = 0

    @property
    def num_stored(self) -> int:
        return len(self._places)

    def __enter__(self) -> "ShardLayout":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._spool:
            if kind is None:
                table = self._write_tar()
                self._out.table("pairs", "{stem}.parquet", pa.Table.from_pylist(table, schema=DOWNLOADED))

    def succeed(self, fetched: Fetched, stored: Stored) -> None:
        self._places[fetched.index] = (self._spool.tell(), len(stored.jpeg))
        self._spool.write(stored.jpeg)
        self._end(
            fetched,
            status="success",
            width=stored.width,
            height=stored.height,
            original_width=stored.original_width,
            original_height=stored.original_height,
            sha256=stored.sha256,
            stored_sha256=stored.stored_sha256,
            phash=stored.phash,
        )

    def fail(self, fetched: Fetched, reason: Reason, detail: str) -> None:
        status = "failed_to_download" if fetched.body is None else "failed_to_resize"
        self._end(fetched, status=status, error_message=detail, reason=reason.value)

    def _end(self, fetched: Fetched, **outcome: Any) -> None:
        assert fetched.index not in self._ended, f"row {fetched.index} ended twice"
        given = self._rows[fetched.index]
        self.fetched_bytes += len(fetched.body or b"")
        self._ended[fetched.index] = {
            "key": given["pair_id"],
            **{name: given[name] for name in ("url", "caption", "source", "image_id", "nsfw", "watermark")},
            "http_status": fetched.http_status,
            "bytes": None if fetched.body is None else len(fetched.body),
            "fetch_ms": fetched.fetch_ms,
            **outcome,
        }

    def _write_tar(self) -> list[dict[str, Any]]:
        """The rows in order, with their pictures' places in the tar."""
        table = [self._ended[index] for index in range(len(self._rows))]
        with tarfile.open(self._tar_path, "w") as tar:
            for index, row in enumerate(table):
                if index in self._places:
                    self._append(tar, row, *self._places[index])
                else:
                    self._out.reject(row["key"], Reason(row["reason"]), row["error_message"])
        return table

    def _append(self, tar: tarfile.TarFile, row: dict[str, Any], offset: int, size: int) -> None:
        self._spool.seek(offset)
        row["image_offset"], row["image_bytes"] = add_member(tar, f"{row['key']}.jpg", self._spool.read(size)), size
        add_member(tar, f"{row['key']}.txt", row["caption"].encode())
        told = {name: row[name] for name in IN_THE_TAR}
        add_member(tar, f"{row['key']}.json", json.dumps(told, ensure_ascii=False).encode())
