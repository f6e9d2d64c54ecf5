"""What a person sees while a run works: a live table on a terminal, a line every ten seconds in a job's log."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from pipeline.commits import CommitRecord

if TYPE_CHECKING:
    from pipeline.stage_run import StageRun

LOG_EVERY_S = 10
log = logging.getLogger("pipeline")


def show_progress() -> None:
    """For jobs: this package's lines on stdout, and of libraries their warnings alone."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    log.setLevel(logging.INFO)


class Progress:
    def __init__(self, runs: Sequence["StageRun"]) -> None:
        self._runs = runs
        self._started: dict[str, float] = {}
        self._shards: Counter[str] = Counter()  # made by this run, not by an earlier one
        self._rows_in: Counter[str] = Counter()
        self._rows_out: Counter[str] = Counter()
        self._next_line = time.monotonic() + LOG_EVERY_S
        self._live = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), get_renderable=self._text, refresh_per_second=4)

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def add(self, run: "StageRun", record: CommitRecord) -> None:
        self._started.setdefault(run.name, time.monotonic() - record.seconds)
        self._shards[run.name] += 1
        self._rows_in[run.name] += record.rows_in
        self._rows_out[run.name] += record.rows_out
        if run.complete and not self._live:
            log.info(self._line(run))

    def trouble(self, name: str, cause: str) -> None:
        if self._live:
            self._live.console.print(f"{name}: {cause.strip()}", markup=False, highlight=False)
        else:
            log.warning("%s: %s", name, cause.strip())

    def tick(self) -> None:
        if self._live or time.monotonic() < self._next_line:
            return
        self._next_line = time.monotonic() + LOG_EVERY_S
        for run in self._runs:
            if self._shards[run.name] and not run.complete:
                log.info(self._line(run))

    def _text(self) -> str:
        return "\n".join(self._line(run) for run in self._runs if run.job)

    def _line(self, run: "StageRun") -> str:
        done, total, name = len(run.done), len(run.shards), run.name
        line = f"{name:<18} {done:,}/{total:,} shards"
        if not self._shards[name]:
            return line
        seconds = max(time.monotonic() - self._started[name], 1e-3)
        rows = self._rows_in[name]
        if rows:
            line += f" · {rows:,} rows · {self._rows_out[name] / rows:.1%} ok · {rows / seconds:,.0f} rows/s"
        if done < total:
            left = (total - done) * seconds / self._shards[name]
            line += f" · ETA {int(left // 3600)}:{int(left // 60 % 60):02}:{int(left % 60):02}"
        return line + (f" · {len(run.failed)} failed" if run.failed else "")
