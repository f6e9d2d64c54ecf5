"""What a person sees while a run works: a live table on a terminal, a line every ten seconds in a job's log; and for
whoever looks from elsewhere, status.json in the root."""

import logging
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from pipeline.commits import CommitRecord
from pipeline.errors import PipelineError, StorageError
from pipeline.status import EVERY_S, STATUS, Meter, StageStatus, read_status, write_status

if TYPE_CHECKING:
    from pipeline.stage_run import StageRun

FRAME_S = 0.25  # of the table on a terminal
log = logging.getLogger("pipeline")


def show_progress() -> None:
    """For jobs: this package's lines on stdout, and of libraries their warnings alone."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    log.setLevel(logging.INFO)
    logging.getLogger("training").setLevel(logging.INFO)


class Progress:
    def __init__(self, root: str, runs: Sequence["StageRun"]) -> None:
        self._root = root
        self._runs = runs
        self._meters: dict[str, Meter] = {}
        self._next = self._next_frame = time.monotonic()
        self._live = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            # Drawn by the driver itself: a thread of its own would read what the driver changes.
            self._live = Live(console=Console(stderr=True), auto_refresh=False)

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        if error is None and (self._meters or not self._said_last()):
            self._say(self._statuses(), ended=True)

    def _said_last(self) -> bool:
        """A run that found everything done leaves the word of the one that did it, unless that was killed over it."""
        try:
            last = read_status(self._root)
        except PipelineError:
            return False
        return last is not None and last.ended

    def started(self, run: "StageRun", shard: str) -> None:
        self._meters.setdefault(run.name, Meter()).start(shard)

    def ended(self, run: "StageRun", shard: str, record: CommitRecord | None) -> None:
        """record: None where the shard was not made."""
        self._meters[run.name].end(shard, record)
        if record and run.complete and not self._live:
            log.info(_line(self._status(run)))

    def trouble(self, what: str) -> None:
        self._show(what, logging.WARNING)

    def news(self, what: str) -> None:
        self._show(what, logging.INFO)

    def _show(self, what: str, level: int) -> None:
        if self._live:
            self._live.console.print(what, markup=False, highlight=False)
        else:
            log.log(level, "%s", what)

    def tick(self) -> None:
        now = time.monotonic()
        if self._live and now >= self._next_frame:
            self._next_frame = now + FRAME_S
            self._live.update("\n".join(map(_line, self._statuses())), refresh=True)
        if now < self._next:
            return
        self._next = now + EVERY_S
        statuses = self._statuses()
        self._say(statuses, ended=False)
        for status in statuses if not self._live else []:
            if status.rows_per_s and status.done < status.shards:
                log.info(_line(status))

    def _say(self, statuses: list[StageStatus], *, ended: bool) -> None:
        try:
            write_status(self._root, statuses, ended=ended)
        except StorageError as error:  # whether the run can go on is for its shards to find out
            log.warning("%s was not written: %s", STATUS, error)

    def _statuses(self) -> list[StageStatus]:
        return [self._status(run) for run in self._runs if run.job]

    def _status(self, run: "StageRun") -> StageStatus:
        meter = self._meters.get(run.name, Meter())
        return meter.status(run.name, len(run.shards), len(run.done), run.failed)


def _line(status: StageStatus) -> str:
    line = f"{status.stage:<18} {status.done:,}/{status.shards:,} shards"
    if status.rows_in:
        share = status.rows_out / status.rows_in
        line += f" · {status.rows_in:,} rows · {share:.1%} ok · {status.rows_per_s:,.0f} rows/s"
    if status.eta_s and status.done < status.shards:
        line += f" · ETA {clock(status.eta_s)}"
    return line + (f" · {len(status.failed)} failed" if status.failed else "")


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{int(seconds % 60):02}"
