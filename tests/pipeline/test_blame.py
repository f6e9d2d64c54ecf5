"""Whose fault a death is: a shard is left out for its own deaths, or in the end for too many of anybody's."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from ray import exceptions
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo

from pipeline.executor import Call, Died, LocalExecutor, Outcome
from pipeline.ray_executor import WORKER_DIED, _blames_the_worker
from pipeline.run import MAX_DEATHS, MAX_LOSSES, Run
from tests.toys import everything_in, toy_stages

LOST = "000002"


def actor_died(message: str, *node: "NodeDeathInfo.Reason") -> exceptions.ActorDiedError:
    """As Ray makes it of what its head knows of an actor's death, and of its node's."""
    context = ActorDiedErrorContext(error_message=message, class_name="Worker", actor_id=bytes(16))
    for reason in node:
        context.node_death_info.reason = reason
    return exceptions.ActorDiedError(context)


@pytest.mark.parametrize(
    ("error", "blamed"),
    [
        (actor_died(f"The actor is dead because {WORKER_DIED}. Worker exit type: SYSTEM_ERROR"), True),
        (actor_died("The actor is dead because its node has died"), False),
        (actor_died(f"because {WORKER_DIED}", NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED), False),
        (actor_died(f"because {WORKER_DIED}", NodeDeathInfo.AUTOSCALER_DRAIN_IDLE), True),
        (exceptions.WorkerCrashedError(), True),
        (exceptions.OutOfMemoryError("Task was killed due to the node running low on memory."), True),
        (exceptions.NodeDiedError("the node of this task has died"), False),
        (exceptions.ActorUnavailableError("the actor is temporarily unavailable", None), False),
        (exceptions.RuntimeEnvSetupError("no such package"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_only_a_process_that_died_on_its_own_is_blamed(error: exceptions.RayError, blamed: bool) -> None:
    assert _blames_the_worker(error) is blamed


@dataclass
class Losing(LocalExecutor):
    """One shard's process is lost so many times before it is made; whether it is to blame is given."""

    times: int = 0
    counted: bool = False

    def wait(self) -> list[Outcome]:
        call: Call = self._queue[0]
        if call.name != f"squares:{LOST}" or self.times == 0:
            return super().wait()
        self.times -= 1
        return [Died(self._queue.pop(), "its process is gone", self.counted)]


@pytest.mark.parametrize(("counted", "limit"), [(False, MAX_LOSSES), (True, MAX_DEATHS)])
def test_a_shard_is_left_out_at_the_limit_and_not_before(counted: bool, limit: int, tmp_path: Path) -> None:
    executor = Losing(times=limit - 1, counted=counted)
    assert Run(str(tmp_path / "made"), toy_stages()).execute(executor).exit_code == 0
    executor = Losing(times=limit + 1, counted=counted)
    report = Run(str(tmp_path / "left out"), toy_stages()).execute(executor)
    assert report.failed == {("squares", LOST): "its process is gone"}
    assert executor.times == 1
    assert Run(str(tmp_path / "left out"), toy_stages()).execute(LocalExecutor()).exit_code == 0
    assert everything_in(str(tmp_path / "made")) == everything_in(str(tmp_path / "left out"))
