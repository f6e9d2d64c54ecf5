"""The driver of a rehearsal: a process that may be killed, and keeps a diary for the one that watches it.

python -m trials.rehearsal.driver ROOT SHARDS DIARY STARTED      STARTED: seconds since 1970, when it was called
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.executor import Call, Died, Done, Outcome, Raised
from pipeline.progress import show_progress
from pipeline.ray_executor import RayExecutor
from pipeline.run import Run
from pipeline.writer import Job
from trials.rehearsal.diary import Diary
from trials.rehearsal.stages import rehearsal_stages

EVERY_S = 0.5


@dataclass
class ObservedExecutor(RayExecutor):
    diary: Path = Path()
    called: float = 0  # seconds since 1970
    _seen: Diary = field(default_factory=Diary)
    _executing: float = field(default_factory=time.monotonic)
    _joining_s: float | None = None
    _written: float = 0

    def room(self, job: Job) -> int:
        asked = time.monotonic()
        room = super().room(job)
        if self._joining_s is None:  # the first call joins Ray
            self._joining_s = time.monotonic() - asked
        return room

    def submit(self, call: Call) -> None:
        if not self._seen.first_shard_s:
            self._seen.first_shard_s = time.time() - self.called
            self._seen.frame_s = time.monotonic() - self._executing - (self._joining_s or 0)
        super().submit(call)

    def wait(self) -> list[Outcome]:
        outcomes = super().wait()
        for outcome in outcomes:
            match outcome:
                case Done(call, _):
                    self._seen.done[call.job.stage.name] += 1
                case Raised():
                    self._seen.raised += 1
                case Died():
                    self._seen.deaths += 1
        if time.monotonic() - self._written > EVERY_S:
            self.note()
        return outcomes

    def note(self) -> None:
        self._seen.write(self.diary)
        self._written = time.monotonic()


def main(argv: Sequence[str]) -> int:
    root, shards, diary, called = argv
    show_progress()
    executor = ObservedExecutor(diary=Path(diary), called=float(called))
    report = Run(root, rehearsal_stages(int(shards))).execute(executor)
    executor.note()
    sys.stdout.write(f"{report}\n")
    sys.stdout.flush()
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
