"""Shards as Ray tasks, and as calls of long-lived actors where a stage keeps state. Only descriptors cross the wire."""

import logging
import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import exceptions

from pipeline.commits import CommitRecord
from pipeline.executor import Call, Died, Done, Outcome, Raised
from pipeline.stage import Resources, Shard
from pipeline.writer import Job, make_shard, open_state

log = logging.getLogger("pipeline")

CALLS_PER_ACTOR = 2  # one runs, one waits; a dying actor takes its queue with it
GONE = (
    exceptions.WorkerCrashedError,
    exceptions.RayActorError,
    exceptions.OutOfMemoryError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
)


def connect(cpus: int | None) -> None:
    """Join the cluster that Ray's own environment names, else start an embedded one on this machine."""
    logging.getLogger("ray").setLevel(logging.WARNING)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", log_to_driver=True)
        return
    # An embedded run would else leave a token behind that a later `ray start` on this machine demands.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_checkout(), os.environ.get("PYTHONPATH")]))
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=200 * 2**20)


def _checkout() -> str:
    return str(Path(__file__).parent.parent)


class Worker:
    """A process that keeps a stage's state from shard to shard."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._state: Any = None
        self._opened = False

    def make(self, shard: Shard) -> CommitRecord:
        if not self._opened:
            self._state, self._opened = open_state(self._job, shard), True
        return make_shard(self._job, shard, self._state)


def _make(job: Job, shard: Shard) -> CommitRecord:
    return make_shard(job, shard, open_state(job, shard))


_make_remotely = ray.remote(_make)


@dataclass
class _Actor:
    handle: Any
    calls: list[Any] = field(default_factory=list)  # references, the running one first
    dead: bool = False


@dataclass(frozen=True)
class _InFlight:
    call: Call
    actor: _Actor | None  # None: a task
    nodes: frozenset[str]  # alive when it was submitted


@dataclass
class RayExecutor:
    """Connects when the first shard is to be placed, so that a finished run needs no Ray. Stages that need more than
    the cluster has wait for it to grow. cpus: of an embedded Ray; None: the machine's."""

    cpus: int | None = None
    _jobs: dict[str, Any] = field(default_factory=dict)  # stage → its Job in the object store
    _flying: dict[Any, _InFlight] = field(default_factory=dict)  # by reference
    _tasks: Counter[str] = field(default_factory=Counter)  # stage → in flight
    _actors: dict[str, list[_Actor]] = field(default_factory=lambda: defaultdict(list))
    _nodes: frozenset[str] = frozenset()
    _total: tuple[float, dict[str, float]] = (0.0, {})

    def room(self, job: Job) -> int:
        if not ray.is_initialized():
            connect(self.cpus)
        if job.stage.stateful:
            return CALLS_PER_ACTOR * self._wanted_actors(job) - sum(len(a.calls) for a in self._actors[job.stage.name])
        window = max(8, int(2 * self._resources().get("CPU", 1) / max(job.stage.resources.cpus, 0.1)))
        return window - self._tasks[job.stage.name]

    def submit(self, call: Call) -> None:
        name = call.job.stage.name
        if name not in self._jobs:
            self._jobs[name] = ray.put(call.job)
        if call.job.stage.stateful:
            actor: _Actor | None = self._freest_actor(call.job)
            assert actor is not None
            reference = actor.handle.make.options(name=call.name).remote(call.shard)
            actor.calls.append(reference)
        else:
            actor = None
            options = _options(call.job.stage.resources) | {"name": call.name, "scheduling_strategy": "SPREAD"}
            reference = _make_remotely.options(**options, max_retries=0).remote(self._jobs[name], call.shard)
            self._tasks[name] += 1
        self._flying[reference] = _InFlight(call, actor, self._nodes)

    def wait(self) -> list[Outcome]:
        ready, _ = ray.wait(list(self._flying), num_returns=1, timeout=1)
        if ready:
            ready, _ = ray.wait(list(self._flying), num_returns=len(self._flying), timeout=0)
        return [self._outcome(reference) for reference in ready]

    def finish(self, job: Job) -> None:
        for actor in self._actors.pop(job.stage.name, []):
            ray.kill(actor.handle)
        self._jobs.pop(job.stage.name, None)

    def close(self) -> None:
        for reference, flying in self._flying.items():
            if flying.actor is None:
                ray.cancel(reference, force=True)
        for actor in [actor for actors in self._actors.values() for actor in actors]:
            ray.kill(actor.handle)
        self._flying.clear()
        self._actors.clear()

    def _resources(self) -> dict[str, float]:
        """The cluster's totals, asked for once a second: an autoscaled cluster grows under the run."""
        asked, total = self._total
        if time.monotonic() - asked > 1:
            total = ray.cluster_resources()
            self._total = (time.monotonic(), total)
            self._nodes = _alive()
        return total

    def _wanted_actors(self, job: Job) -> int:
        """As many as fit beside one CPU that is left for the stages that feed them."""
        need, total = job.stage.resources, self._resources()
        if need.workers is not None:
            return need.workers
        if need.gpus:
            return max(1, int(total.get("GPU", 0) / need.gpus))
        return max(1, int((total.get("CPU", 1) - 1) / need.cpus))

    def _freest_actor(self, job: Job) -> _Actor:
        actors = self._actors[job.stage.name]
        idle = next((actor for actor in actors if not actor.calls), None)
        if idle is None and len(actors) < self._wanted_actors(job):
            options = _options(job.stage.resources)
            # On a machine with one CPU the actor must leave it to the tasks that feed it.
            options["num_cpus"] = min(options["num_cpus"], max(0, self._resources().get("CPU", 1) - 1))
            idle = _Actor(ray.remote(Worker).options(**options, max_restarts=0).remote(self._jobs[job.stage.name]))
            actors.append(idle)
        return idle or min(actors, key=lambda actor: len(actor.calls))

    def _outcome(self, reference: Any) -> Outcome:
        flying = self._flying.pop(reference)
        was_running = self._leave_queue(flying, reference)
        try:
            return Done(flying.call, ray.get(reference))
        except exceptions.RayTaskError as error:
            return Raised(flying.call, str(error))  # the traceback on the worker
        except GONE as error:
            if flying.actor:
                self._bury(flying.actor, flying.call)
            return Died(flying.call, str(error), counted=was_running and not self._lost_a_node(flying))

    def _leave_queue(self, flying: _InFlight, reference: Any) -> bool:
        """False: the call was waiting behind another one in its actor, or the actor was dead already."""
        actor = flying.actor
        if actor is None:
            self._tasks[flying.call.job.stage.name] -= 1
            return True
        was_running = actor.calls[0] == reference and not actor.dead
        actor.calls.remove(reference)
        return was_running

    def _bury(self, actor: _Actor, call: Call) -> None:
        actor.dead = True
        actors = self._actors[call.job.stage.name]
        if actor in actors:
            actors.remove(actor)

    def _lost_a_node(self, flying: _InFlight) -> bool:
        """A node that was there at submission is gone: its shards are not to blame."""
        return bool(flying.nodes - _alive())


def _alive() -> frozenset[str]:
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


def _options(resources: Resources) -> dict[str, Any]:
    return {
        "num_cpus": resources.cpus,
        "num_gpus": resources.gpus,
        "memory": int(resources.memory_gib * 2**30),
    }
