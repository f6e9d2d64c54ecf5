"""What the scheduler asks of an engine of execution, and the plain in-process one that is the reference."""

import traceback
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.commits import CommitRecord
from pipeline.stage import Shard
from pipeline.writer import Job, make_shard, open_state


@dataclass(frozen=True)
class Call:
    job: Job
    shard: Shard

    @property
    def name(self) -> str:
        return f"{self.job.stage.name}:{self.shard.id}"


@dataclass(frozen=True)
class Done:
    call: Call
    record: CommitRecord


@dataclass(frozen=True)
class Raised:
    """The stage's own code raised; cause is the traceback."""

    call: Call
    cause: str
    error: Exception


@dataclass(frozen=True)
class Died:
    """The process that ran the shard is gone. counted: False where the shard cannot be to blame (a lost node, or
    another shard in the same process)."""

    call: Call
    cause: str
    counted: bool


Outcome = Done | Raised | Died


class Executor(Protocol):
    def room(self, job: Job) -> int:
        """How many more shards of this stage may be submitted now."""

    def submit(self, call: Call) -> None: ...

    def wait(self) -> list[Outcome]:
        """Those that ended; blocks for at most about a second, and may be empty."""

    def finish(self, job: Job) -> None:
        """The stage needs no worker any more."""

    def close(self) -> None: ...


@dataclass
class LocalExecutor:
    """One shard after the other in this process."""

    _queue: list[Call] = field(default_factory=list)
    _states: dict[str, Any] = field(default_factory=dict)

    def room(self, job: Job) -> int:
        return 1 - len(self._queue)

    def submit(self, call: Call) -> None:
        self._queue.append(call)

    def wait(self) -> list[Outcome]:
        call = self._queue.pop()
        try:
            return [Done(call, make_shard(call.job, call.shard, self._state(call)))]
        except Exception as error:  # noqa: BLE001 - whatever a stage raises is this shard's outcome
            return [Raised(call, traceback.format_exc(), error)]

    def _state(self, call: Call) -> Any:
        name = call.job.stage.name
        if name not in self._states:
            self._states[name] = open_state(call.job, call.shard)
        return self._states[name]

    def finish(self, job: Job) -> None:
        self._states.pop(job.stage.name, None)

    def close(self) -> None:
        self._states.clear()
