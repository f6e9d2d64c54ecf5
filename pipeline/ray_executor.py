"""Shards as Ray tasks, and as calls of long-lived actors where a stage keeps state. Only descriptors cross the wire."""

import itertools
import logging
import os
import textwrap
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray import exceptions

from pipeline.commits import CommitRecord
from pipeline.errors import RecipeError
from pipeline.executor import Call, Died, Done, Outcome, Raised
from pipeline.metrics import Metrics
from pipeline.progress import show_progress
from pipeline.stage import ALL, Resources, Shard, Share
from pipeline.writer import Job, make_shard, open_state

log = logging.getLogger("pipeline")

CALLS_PER_ACTOR = 2  # one runs, one waits; a dying actor takes its queue with it
WORKER_DIED = "its worker process has died"  # an actor's error tells the cause in its text alone
CAUSE_CHARS = 500
PLACING_S = 10  # what a node with room needs at most to start an actor's process

_actor_numbers = itertools.count()  # an actor's name may not come twice in a job


def connect(cpus: int | None) -> None:
    """Join the cluster that Ray's own environment names, else start an embedded one on this machine."""
    logging.getLogger("ray").setLevel(logging.WARNING)
    address = os.environ.get("RAY_ADDRESS")
    if address:
        if address.startswith("http"):
            raise RecipeError(
                f"RAY_ADDRESS is {address}: that is for `ray job submit`; unset it to run on this machine"
            )
        try:
            ray.init(address="auto", log_to_driver=True)
        except ConnectionError as error:
            raise RecipeError(f"no Ray cluster answers at RAY_ADDRESS {address}: {error}") from None
        return
    # An embedded run would else leave a token behind that a later `ray start` on this machine demands.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_checkout(), os.environ.get("PYTHONPATH")]))
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=200 * 2**20)


@contextmanager
def running_ray(cpus: int | None) -> Iterator[None]:
    """The Ray that runs, or one for the time being, connected to as `connect` does."""
    if ray.is_initialized():
        yield
        return
    connect(cpus)
    try:
        yield
    finally:
        ray.shutdown()


def _checkout() -> str:
    return str(Path(__file__).parent.parent)


class Worker:
    """A process that keeps a stage's state from shard to shard."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._state: Any = None
        self._opened = False

    def __repr__(self) -> str:
        return self._job.stage.name  # before its lines in the driver's log

    def make(self, shard: Shard) -> CommitRecord:
        show_progress()
        if not self._opened:
            self._state, self._opened = open_state(self._job, shard), True
        return make_shard(self._job, shard, self._state)


def _make(job: Job, shard: Shard, share: Share) -> CommitRecord:
    show_progress()
    return make_shard(job, shard, open_state(job, shard), share)


_make_remotely = ray.remote(_make)


@dataclass
class _Actor:
    handle: Any
    placed: Any  # a reference that is ready once a node has taken it in
    since: float = field(default_factory=time.monotonic)
    calls: list[Any] = field(default_factory=list)  # references, the running one first
    killed_by: Any = None  # the reference that ran when it died


@dataclass(frozen=True)
class _InFlight:
    call: Call
    actor: _Actor | None  # None: a task
    share: Share = ALL


@dataclass
class RayExecutor:
    """Connects when the first shard is to be placed, so that a finished run needs no Ray. Stages that need more than
    the cluster has wait for it to grow. cpus: of an embedded Ray; None: the machine's."""

    cpus: int | None = None
    _jobs: dict[str, Any] = field(default_factory=dict)  # stage → its Job in the object store
    _flying: dict[Any, _InFlight] = field(default_factory=dict)  # by reference
    _in_flight: Counter[str] = field(default_factory=Counter)  # by stage
    _actors: dict[str, list[_Actor]] = field(default_factory=lambda: defaultdict(list))
    _stateful: dict[str, Job] = field(default_factory=dict)  # by stage
    _total: tuple[float, dict[str, float]] = (0.0, {})

    def room(self, job: Job) -> int:
        if not ray.is_initialized():
            connect(self.cpus)
        return self._window(job) - self._in_flight[job.stage.name]

    def _window(self, job: Job) -> int:
        if job.stage.stateful:
            return CALLS_PER_ACTOR * self._wanted_actors(job)
        at_once = self._resources().get("CPU", 1) / max(job.stage.resources.cpus, 0.1)
        if job.stage.sharing:  # none waits for another to end: it would have a share and not use it
            return job.stage.resources.workers or max(1, int(at_once))
        return max(8, int(2 * at_once))

    def _share(self, job: Job) -> Share:
        """The first that no shard at work has. While a cluster grows, shares that were told before are larger."""
        stage = job.stage.name
        taken = {flying.share.number for flying in self._flying.values() if flying.call.job.stage.name == stage}
        number = next(number for number in itertools.count() if number not in taken)
        return Share(number, max(self._window(job), number + 1))

    @cached_property
    def _metrics(self) -> Metrics:
        return Metrics()

    def submit(self, call: Call) -> None:
        name = call.job.stage.name
        if name not in self._jobs:
            self._jobs[name] = ray.put(call.job)
        if call.job.stage.stateful:
            self._stateful[name] = call.job
            actor = self._freest_actor(call.job)
            reference = actor.handle.make.options(name=name).remote(call.shard)
            actor.calls.append(reference)
            self._flying[reference] = _InFlight(call, actor)
        else:
            share = self._share(call.job) if call.job.stage.sharing else ALL
            options = self._options(call.job.stage.resources) | {"name": name, "scheduling_strategy": "SPREAD"}
            reference = _make_remotely.options(**options, max_retries=0).remote(self._jobs[name], call.shard, share)
            self._flying[reference] = _InFlight(call, None, share)
        self._count_in_flight(name, 1)

    def wait(self) -> list[Outcome]:
        self._free_unplaced()
        self._free_surplus()
        ready, _ = ray.wait(list(self._flying), num_returns=1, timeout=1)
        if ready:
            ready, _ = ray.wait(list(self._flying), num_returns=len(self._flying), timeout=0)
        ended = set(ready)
        # In the order of submission: of an actor's calls the earlier one was the one that ran.
        return [self._outcome(reference) for reference in list(self._flying) if reference in ended]

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
        for kept in (self._flying, self._actors, self._jobs, self._in_flight):
            kept.clear()

    def _options(self, resources: Resources) -> dict[str, Any]:
        """An embedded Ray cannot grow, so there a stage gets what the machine has; its threads stay as declared."""
        cpus, memory = resources.cpus, resources.memory_gib * 2**30
        if not os.environ.get("RAY_ADDRESS"):
            total = self._resources()
            cpus, memory = min(cpus, total.get("CPU", cpus)), min(memory, total.get("memory", memory))
        return {"num_cpus": cpus, "num_gpus": resources.gpus, "memory": int(memory)}

    def _resources(self) -> dict[str, float]:
        """The cluster's totals, asked for once a second: an autoscaled cluster grows under the run."""
        asked, total = self._total
        if time.monotonic() - asked > 1:
            total = ray.cluster_resources()
            self._total = (time.monotonic(), total)
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
            options = self._options(job.stage.resources)
            # On a machine with one CPU the actor must leave it to the tasks that feed it.
            options["num_cpus"] = min(options["num_cpus"], max(0, self._resources().get("CPU", 1) - 1))
            idle = self._new_actor(job.stage.name, options)
            actors.append(idle)
        return idle or min(actors, key=lambda actor: len(actor.calls))

    def _new_actor(self, stage: str, options: dict[str, Any]) -> _Actor:
        # Retries without restarts: where a worker cannot be reached, Ray calls it again until it answers or the cause
        # of its death is known (after 15 s where a node's processes are gone, a minute where it is only silent).
        options |= {"name": f"{stage}-{next(_actor_numbers)}", "max_restarts": 0, "max_task_retries": -1}
        handle = ray.remote(Worker).options(**options).remote(self._jobs[stage])
        return _Actor(handle, handle.__ray_ready__.remote())

    def _free_unplaced(self) -> None:
        """Give up actors that no node has room for while another is idle: their shards would wait for ever."""
        for actors in self._actors.values():
            if all(actor.calls for actor in actors):
                continue
            for actor in actors:
                if actor.calls and time.monotonic() - actor.since > PLACING_S and not _ready(actor.placed):
                    ray.kill(actor.handle)

    def _free_surplus(self) -> None:
        """End idle actors beyond those wanted: a cluster that lost a node may be full of them, and the tasks that feed
        them would wait for ever."""
        for stage, actors in self._actors.items():
            surplus = len(actors) - self._wanted_actors(self._stateful[stage])
            for actor in [actor for actor in actors if not actor.calls][: max(surplus, 0)]:
                ray.kill(actor.handle)
                actors.remove(actor)

    def _outcome(self, reference: Any) -> Outcome:
        flying = self._flying.pop(reference)
        outcome = self._ended(flying, reference)
        self._leave(flying, reference)
        self._metrics.ended(outcome)
        return outcome

    def _ended(self, flying: _InFlight, reference: Any) -> Outcome:
        try:
            return Done(flying.call, ray.get(reference))
        except exceptions.RayTaskError as error:
            return Raised(flying.call, str(error), error.cause)  # as text: the traceback on the worker
        except exceptions.RayError as error:
            counted = self._was_running(flying, reference) and _blames_the_worker(error)
            said = textwrap.shorten(str(error), CAUSE_CHARS, placeholder=" …")
            return Died(flying.call, f"{type(error).__name__}: {said}", counted)

    def _was_running(self, flying: _InFlight, reference: Any) -> bool:
        """False: the call only waited in an actor that another one took with it."""
        actor = flying.actor
        if actor is None:
            return True
        if actor.killed_by is None:
            actor.killed_by = actor.calls[0]
            self._actors[flying.call.job.stage.name].remove(actor)
        return bool(actor.killed_by == reference)

    def _leave(self, flying: _InFlight, reference: Any) -> None:
        if flying.actor is not None:
            flying.actor.calls.remove(reference)
        self._count_in_flight(flying.call.job.stage.name, -1)

    def _count_in_flight(self, stage: str, change: int) -> None:
        self._in_flight[stage] += change
        self._metrics.in_flight(stage, self._in_flight[stage])


def _ready(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


def _blames_the_worker(error: exceptions.RayError) -> bool:
    """Ray tells a worker that died on its own from one lost with its node; whatever else it meets (a node, a
    pre-emption, an environment that could not be set up) is not the shard's doing."""
    if isinstance(error, exceptions.ActorDiedError):
        return WORKER_DIED in str(error) and not error.preempted
    return isinstance(error, exceptions.WorkerCrashedError | exceptions.OutOfMemoryError)
