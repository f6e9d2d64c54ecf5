"""Faults of processes, injected by a seed: workers are killed, nodes are lost and replaced."""

import contextlib
import os
import random
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from trials.cluster import TwoNodes
from trials.processes import descendants, title

BUSY_WORKER = re.compile(r"ray::(rows|marked|totals)\b")


@dataclass
class Chaos:
    """Among this process's descendants. The intervals are drawn evenly from half to one and a half of those given."""

    nodes: TwoNodes
    draws: random.Random
    kill_every_s: float
    lose_every_s: float
    workers_killed: int = 0
    nodes_lost: int = 0
    _due: dict[Callable[[], None], float] = field(default_factory=dict)

    def strike_where_due(self) -> None:
        for strike, every_s in ((self._kill_worker, self.kill_every_s), (self._lose_node, self.lose_every_s)):
            now = time.monotonic()
            if now >= self._due.setdefault(strike, now + every_s * self.draws.uniform(0.5, 1.5)):
                strike()
                del self._due[strike]

    def _kill_worker(self) -> None:
        busy = sorted(process for process in descendants(os.getpid()) if BUSY_WORKER.match(title(process)))
        with contextlib.suppress(ProcessLookupError, IndexError):  # it ended meanwhile; none is busy
            os.kill(self.draws.choice(busy), signal.SIGKILL)
            self.workers_killed += 1

    def _lose_node(self) -> None:
        self.nodes.lose()
        self.nodes.join()
        self.nodes_lost += 1
