"""The driver of a rehearsal: a process that may be killed, and keeps its state in a file for the one that watches it.

python -m trials.rehearsal.driver ROOT SHARDS STATE_FILE CALLED      CALLED: seconds since 1970, when it was called
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.executor import Call, Died, Done, Outcome, Raised
from pipeline.progress import show_progress
from pipeline.ray_executor import RayExecutor, connect
from pipeline.run import Run
from trials.rehearsal.driver_state import DriverState
from trials.rehearsal.stages import rehearsal_stages

WRITE_EVERY_S = 0.5


@dataclass
class ObservedExecutor(RayExecutor):
    """Made when the run starts, after Ray was joined."""

    state: DriverState = field(default_factory=DriverState)
    state_file: Path = Path()
    called: float = 0  # seconds since 1970
    _started: float = field(default_factory=time.monotonic)
    _written: float = 0

    def submit(self, call: Call) -> None:
        if not self.state.first_shard_s:
            self.state.first_shard_s = time.time() - self.called
            self.state.frame_s = time.monotonic() - self._started
        super().submit(call)

    def wait(self) -> list[Outcome]:
        outcomes = super().wait()
        for outcome in outcomes:
            match outcome:
                case Done(call, _):
                    self.state.done[call.job.stage.name] += 1
                case Raised():
                    self.state.raised += 1
                case Died():
                    self.state.deaths += 1
        if time.monotonic() - self._written > WRITE_EVERY_S:
            self.write()
        return outcomes

    def write(self) -> None:
        self.state.write(self.state_file)
        self._written = time.monotonic()


def main(argv: Sequence[str]) -> int:
    root, shards, state_file, called = argv
    show_progress()
    asked = time.monotonic()
    connect(None)
    state = DriverState(join_s=time.monotonic() - asked)
    executor = ObservedExecutor(state=state, state_file=Path(state_file), called=float(called))
    report = Run(root, rehearsal_stages(int(shards))).execute(executor)
    executor.write()
    sys.stdout.write(f"{report}\n")
    sys.stdout.flush()
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
