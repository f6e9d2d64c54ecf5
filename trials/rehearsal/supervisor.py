"""The process that starts the nodes and the driver, kills them by the seed, and watches what that costs."""

import contextlib
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.commits import StageFolder
from pipeline.errors import ShardFailed
from trials.cluster import TwoNodes, environment, two_nodes
from trials.faulty_store import FaultyStore, Tally
from trials.processes import Usage, descendants, title
from trials.rehearsal.diary import Diary

CPUS = 8  # that a node declares; more than there are, because a worker mostly waits for the store
LOOK_EVERY_S, SAY_EVERY_S = 0.2, 10
A_WORKER = re.compile(r"ray::(rows|marked|totals)\b")
log = logging.getLogger("rehearsal")


@dataclass(frozen=True)
class Rehearsal:
    """root: absolute, or a url. kills: False on a cluster that belongs to somebody else. A local root, on nodes of our
    own, is served as an object store on a bad day."""

    root: str
    shards: int
    seed: int
    kill_every_s: float
    lose_every_s: float
    kills: bool

    @property
    def served(self) -> str:
        """The root as the run gets it."""
        return f"{FaultyStore.protocol}://{self.root}" if self.kills and "://" not in self.root else self.root

    def beside(self, suffix: str) -> Path:
        """Log, report and counts lie beside a local root, and in runs/ where the root is elsewhere."""
        root = Path("runs", self.root.rpartition("/")[2]) if "://" in self.root else Path(self.root)
        return root.with_name(root.name + suffix)

    @property
    def calls(self) -> Path:
        """Where the faulty store counts its calls."""
        return self.beside(".calls")

    def settings(self) -> dict[str, str]:
        """What makes the store faulty, for the environment of processes to come."""
        return {"FSSPEC_FAULTY": json.dumps({"seed": self.seed, "tally": str(self.calls)})}


@dataclass(frozen=True)
class Observed:
    """What the rehearsal of one run showed."""

    wall_s: float
    drivers: list["Driver"]
    workers_killed: int
    nodes_lost: int


@dataclass
class Driver:
    """A driver process, as it was when it was last looked at."""

    process: subprocess.Popen[bytes]
    page: Path  # where it keeps its diary
    diary: Diary = field(default_factory=Diary)
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def start(cls, given: Rehearsal, number: int) -> "Driver":
        page = given.beside(f".driver{number}.json")
        arguments = [given.served, str(given.shards), str(page), str(time.time())]
        with given.beside(".log").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "trials.rehearsal.driver", *arguments], stdout=out, stderr=subprocess.STDOUT
            )
        return cls(process, page)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def look(self) -> None:
        self.diary = Diary.read(self.page)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self.usage = Usage.of(self.process.pid)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@dataclass
class Mischief:
    """Kills a worker now and then, and takes a node away and gives another; the intervals vary by half."""

    nodes: TwoNodes
    chance: random.Random
    kill_every_s: float
    lose_every_s: float
    killed: int = 0
    lost: int = 0
    _next: dict[Callable[[], None], float] = field(default_factory=dict)

    def tick(self) -> None:
        for act, every_s in ((self._kill_a_worker, self.kill_every_s), (self._lose_a_node, self.lose_every_s)):
            now = time.monotonic()
            if now >= self._next.setdefault(act, now + every_s * self.chance.uniform(0.5, 1.5)):
                act()
                del self._next[act]

    def _kill_a_worker(self) -> None:
        workers = sorted(process for process in descendants(os.getpid()) if A_WORKER.match(title(process)))
        with contextlib.suppress(ProcessLookupError, IndexError):  # it ended meanwhile; nobody works
            os.kill(self.chance.choice(workers), signal.SIGKILL)
            self.killed += 1

    def _lose_a_node(self) -> None:
        self.nodes.lose()
        self.nodes.join()
        self.lost += 1


def rehearse(given: Rehearsal) -> Observed:
    """Raises ShardFailed where the run does not end well in spite of everything."""
    given.calls.mkdir(parents=True)
    if not given.kills:
        return _perform(given, None)
    with environment(given.settings()), two_nodes(CPUS) as nodes, environment({"RAY_ADDRESS": nodes.address}):
        return _perform(given, Mischief(nodes, random.Random(given.seed), given.kill_every_s, given.lose_every_s))


def _perform(given: Rehearsal, mischief: Mischief | None) -> Observed:
    started = time.monotonic()
    drivers = [Driver.start(given, 0)]
    if mischief:
        _watch(given, drivers, mischief, lambda diary: diary.done.get("marked", 0) >= given.shards / 2)
        drivers[0].kill()
        drivers.append(Driver.start(given, 1))
    _watch(given, drivers, mischief, lambda diary: False)
    if drivers[-1].process.returncode:
        raise ShardFailed(f"the run did not end well; {given.beside('.log')} says why")
    return Observed(
        wall_s=time.monotonic() - started,
        drivers=drivers,
        workers_killed=mischief.killed if mischief else 0,
        nodes_lost=mischief.lost if mischief else 0,
    )


def _watch(
    given: Rehearsal, drivers: Sequence[Driver], mischief: Mischief | None, until: Callable[[Diary], bool]
) -> None:
    """Until the last driver ends or has come so far."""
    said = time.monotonic()
    while drivers[-1].alive and not until(drivers[-1].diary):
        time.sleep(LOOK_EVERY_S)
        drivers[-1].look()
        if mischief:
            mischief.tick()
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            _say(given, drivers, mischief)
    drivers[-1].look()


def _say(given: Rehearsal, drivers: Sequence[Driver], mischief: Mischief | None) -> None:
    done = sum((Counter(driver.diary.done) for driver in drivers), Counter())
    line = " · ".join(f"{stage} {shards:,}" for stage, shards in done.items()) + f" of {given.shards:,} shards"
    if mischief:
        line += f" · killed: {mischief.killed} workers, {mischief.lost} nodes, {len(drivers) - 1} drivers"
    log.info("%s", line)


def seconds_to_list(given: Rehearsal) -> float:
    """The committed shards of one stage."""
    started = time.monotonic()
    StageFolder(given.served, "marked").committed()
    return time.monotonic() - started


def tallies(given: Rehearsal, seen: Observed) -> tuple[Tally, Tally]:
    """Of the workers and of the drivers."""
    drivers = {str(driver.process.pid) for driver in seen.drivers}
    files = [(file.name.partition("-")[0] in drivers, file) for file in given.calls.iterdir()]
    return Tally.of(f for of_driver, f in files if not of_driver), Tally.of(f for of_driver, f in files if of_driver)
