"""Objects that live in processes of their own, somewhere in the cluster: one that dies, alone or with its node, is
started again and its call repeated. So for objects that can be made anew, and calls that change nothing."""

import math
import os
import socket
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import exceptions

from pipeline.errors import NotOpened, PipelineError
from pipeline.ray_executor import CAUSE_CHARS, connect
from pipeline.stage import Resources
from pipeline.threads import set_threads

MOST_DEATHS = 3  # that one call may meet
PLACING_S = 300.0  # what a cluster may need to grow by a node

Maker = Callable[[], object]  # is sent to the process, and makes its object there
Question = tuple[str, Sequence[Any]]  # a method of Worker, and its arguments


@dataclass(frozen=True)
class Whereabouts:
    host: str
    process: int
    calls: int  # that this process has answered


class Worker:
    """A process that keeps one object."""

    def __init__(self, name: str, make: Maker, threads: int) -> None:
        self._name, self._make, self._threads = name, make, threads
        self._object: Any = None
        self._calls = 0

    def __repr__(self) -> str:
        return self._name  # before its lines in the driver's log

    def call(self, method: str, arguments: Sequence[Any]) -> Any:
        if self._object is None:
            set_threads(self._threads)
            self._object = self._make()
        answer = getattr(self._object, method)(*arguments)
        self._calls += 1
        return answer

    def whereabouts(self) -> Whereabouts:
        return Whereabouts(socket.gethostname(), os.getpid(), self._calls)


@dataclass(frozen=True)
class _Actor:
    handle: Any
    placed: Any  # a reference that is ready once its process runs


class Actors:
    """One object for each name, made when it is first called. Threads may share them; an object gets one call at a
    time."""

    def __init__(
        self,
        makers: Mapping[str, Maker],
        resources: Resources,
        *,
        most_deaths: int = MOST_DEATHS,
        placing_s: float = PLACING_S,
    ) -> None:
        """resources: of each process. An embedded Ray cannot grow, so there they share what the machine has.
        most_deaths: that one call may meet. placing_s: how long a process may wait for a node that has room."""
        if not ray.is_initialized():
            connect(None)
        self._makers, self._threads = dict(makers), resources.threads
        self._options = _options(resources, len(makers))
        self._most_deaths, self._placing_s = most_deaths, placing_s
        self._lock = threading.Lock()
        self._actors = {name: self._started(name) for name in makers}

    def call(self, method: str, arguments: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Of several objects at once: name → arguments, and name → answer, whose arrays may be read-only.

        Raises NotOpened where a process died most_deaths times during the call or found no room, and whatever an
        object raises.
        """
        return self._ask({name: ("call", (method, some)) for name, some in arguments.items()})

    def whereabouts(self) -> dict[str, Whereabouts]:
        """Of each process that runs now."""
        return self._ask({name: ("whereabouts", ()) for name in self._makers})

    def close(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor.handle)
        self._actors.clear()

    def _ask(self, questions: Mapping[str, Question]) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        deaths: Counter[str] = Counter()
        while len(answers) < len(questions):
            asked = {name: self._submit(name, questions[name]) for name in questions if name not in answers}
            for name, (actor, reference) in asked.items():
                try:
                    answers[name] = self._answer(name, actor, reference)
                except exceptions.RayTaskError as error:
                    if isinstance(error.cause, PipelineError):
                        raise error.cause from None  # a person is to read it, and not the worker's traceback
                    raise
                except exceptions.RayError as error:
                    deaths[name] += 1
                    if deaths[name] == self._most_deaths:
                        raise NotOpened(_given_up(name, deaths[name], error)) from None
                    self._replace(name, actor)
        return answers

    def _submit(self, name: str, question: Question) -> tuple[_Actor, Any]:
        actor, (method, arguments) = self._actors[name], question
        return actor, getattr(actor.handle, method).remote(*arguments)

    def _answer(self, name: str, actor: _Actor, reference: Any) -> Any:
        ready, _ = ray.wait([reference, actor.placed], timeout=self._placing_s)
        if not ready:
            raise NotOpened(
                f"{name} found no room in {self._placing_s:g} s. It needs {self._options}; of the cluster's "
                f"{ray.cluster_resources()} there is free {ray.available_resources()}. Ask for fewer or smaller ones"
            )
        return ray.get(reference)

    def _started(self, name: str) -> _Actor:
        # Retries without restarts: where a process cannot be reached, Ray calls it again until it answers or is known
        # to be dead.
        options = self._options | {"max_restarts": 0, "max_task_retries": -1, "scheduling_strategy": "SPREAD"}
        handle = ray.remote(Worker).options(**options).remote(name, self._makers[name], self._threads)
        return _Actor(handle, handle.__ray_ready__.remote())

    def _replace(self, name: str, dead: _Actor) -> None:
        with self._lock:
            if self._actors[name] is dead:  # else another thread met the same death
                self._actors[name] = self._started(name)


def _options(resources: Resources, processes: int) -> dict[str, Any]:
    cpus, memory = resources.cpus, resources.memory_gib * 2**30
    if not os.environ.get("RAY_ADDRESS"):
        total = ray.cluster_resources()
        cpus, memory = min(cpus, total.get("CPU", 0) / processes), min(memory, total.get("memory", 0) / processes)
    return {"num_cpus": math.floor(100 * cpus) / 100, "num_gpus": resources.gpus, "memory": int(memory)}


def _given_up(name: str, deaths: int, error: exceptions.RayError) -> str:
    said = textwrap.shorten(str(error), CAUSE_CHARS, placeholder=" …")
    return f"{name} is given up: its process died {deaths} times during one call. {type(error).__name__}: {said}"
