"""What a driver knows of its run and no commit record says: what is running, at what rate, and what failed and why.

It stands in status.json of the run's root, written anew while the run works and once more when it ends.
"""

import os
import socket
import statistics
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError

from pipeline.commits import CommitRecord
from pipeline.errors import InputError
from pipeline.recipe import Section
from pipeline.storage import open_store

STATUS = "status.json"
EVERY_S = 10
WINDOW_S = 300  # of the rates
KEPT = 1000  # shards, of which the typical time is told


class StageStatus(Section):
    """Rows and rejects are of the shards that this driver made; a shard's seconds count from when it was handed out."""

    stage: str
    shards: int  # planned
    done: int
    rows_in: int
    rows_out: int
    rejects: dict[str, int]  # reason → rows
    rows_per_s: float  # in the last minutes
    eta_s: float | None
    typical_s: float | None  # median of a shard
    running: dict[str, float]  # shard → seconds so far
    failed: dict[str, str]  # shard → cause, in one line


class Status(Section):
    written: datetime
    host: str
    pid: int
    ended: bool
    stages: list[StageStatus]


def read_status(root: str) -> Status | None:
    """None where no driver has written one. Raises InputError where it cannot be read."""
    try:
        return Status.model_validate_json(open_store(root).read(STATUS))
    except FileNotFoundError:
        return None
    except ValidationError:
        raise InputError(f"{root}/{STATUS} cannot be read; remove it") from None


def write_status(root: str, stages: list[StageStatus], *, ended: bool) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    status = Status(written=now, host=socket.gethostname(), pid=os.getpid(), ended=ended, stages=stages)
    open_store(root).write(STATUS, status.model_dump_json(indent=1).encode())


@dataclass
class Meter:
    """Counts what one driver makes of one stage."""

    rows_in: int = 0
    rows_out: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    _began: dict[str, float] = field(default_factory=dict)  # shard → when it was handed out
    _took: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    _recent: deque[tuple[float, int]] = field(default_factory=deque)  # when a shard was committed, and its rows

    def start(self, shard: str) -> None:
        self._began[shard] = time.monotonic()

    def end(self, shard: str, record: CommitRecord | None) -> None:
        """record: None where the shard was not made."""
        now, began = time.monotonic(), self._began.pop(shard)
        if record is None:
            return
        if not self._recent:
            self._recent.append((began, 0))
        self._recent.append((now, record.rows_in))
        while self._recent[1][0] < now - WINDOW_S:
            self._recent.popleft()
        self._took.append(now - began)
        self.rows_in += record.rows_in
        self.rows_out += record.rows_out
        self.rejects.update(record.rejects)

    def status(self, stage: str, shards: int, done: int, failed: Mapping[str, str]) -> StageStatus:
        now = time.monotonic()
        seconds = max(now - self._recent[0][0], 1e-3) if self._recent else 1.0
        recent, rows = max(len(self._recent) - 1, 0), sum(rows for _, rows in list(self._recent)[1:])
        return StageStatus(
            stage=stage,
            shards=shards,
            done=done,
            rows_in=self.rows_in,
            rows_out=self.rows_out,
            rejects=self.rejects,
            rows_per_s=rows / seconds,
            eta_s=(shards - done) * seconds / recent if recent else None,
            typical_s=statistics.median(self._took) if self._took else None,
            running={shard: round(now - began, 1) for shard, began in self._began.items()},
            failed=dict(failed),
        )
