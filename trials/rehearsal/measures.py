"""What is measured of the store: the calls that were made, those that an undisturbed shard makes, and a listing."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.commits import StageFolder
from pipeline.executor import LocalExecutor, Outcome
from pipeline.run import Run
from trials.faulty_store import CallCounts, FaultyStore, counting
from trials.rehearsal.stages import Marked, Rows
from trials.rehearsal.supervisor import Observed, Rehearsal

QUIET_SHARDS = 200  # one in three of them has rejects, and so a file more to upload


@dataclass
class CountingExecutor(LocalExecutor):
    """Counts what shards ask of the store, and not what the driver asks beside them."""

    counts: Callable[[], CallCounts] = CallCounts
    calls: int = 0

    def wait(self) -> list[Outcome]:
        before = self.counts().calls
        outcomes = super().wait()
        self.calls += self.counts().calls - before
        return outcomes


def calls_of_a_shard(shards: int = QUIET_SHARDS) -> float:
    """Of its way through rows and marked, on average; nothing fails and nothing is killed."""
    with (
        tempfile.TemporaryDirectory() as root,
        counting(latency_s=0, page_s=0, error_rate=0) as counts,
    ):
        executor = CountingExecutor(counts=counts)
        report = Run(f"{FaultyStore.protocol}://{root}", [Rows(shards), Marked()]).execute(executor)
    assert report.exit_code == 0, report
    return executor.calls / shards


def listing(given: Rehearsal) -> tuple[float, float]:
    """Seconds to list the committed shards of one stage, and how many of them are injected latency."""
    with counting(error_rate=0) as counts:
        started = time.monotonic()
        StageFolder(given.served, "marked").committed()
        return time.monotonic() - started, counts().waited_us / 1e6


def calls_made(given: Rehearsal, seen: Observed) -> tuple[CallCounts, CallCounts]:
    """By the workers and by the drivers."""
    drivers = {str(driver.process.pid) for driver in seen.drivers}
    files = [(file.name.partition("-")[0] in drivers, file) for file in given.calls.iterdir()]
    workers = CallCounts.of(file for of_driver, file in files if not of_driver)
    return workers, CallCounts.of(file for of_driver, file in files if of_driver)
