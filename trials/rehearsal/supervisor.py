"""The process that starts the nodes and the drivers, injects the faults, and watches what that costs."""

import contextlib
import json
import logging
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ShardFailed
from trials.cluster import environment, two_nodes
from trials.faulty_store import FaultyStore
from trials.processes import Usage
from trials.rehearsal.chaos import Chaos
from trials.rehearsal.driver_state import DriverState

LOOK_EVERY_S, SAY_EVERY_S = 0.2, 10
log = logging.getLogger("rehearsal")


@dataclass(frozen=True)
class Rehearsal:
    """root: absolute, or a url. own_nodes: False on a cluster that was there before, where nothing is killed. cpus: of
    each of our own two nodes.
    """

    root: str
    shards: int
    seed: int
    kill_every_s: float
    lose_every_s: float
    own_nodes: bool
    cpus: int

    @property
    def faulty(self) -> bool:
        """A local root, on nodes of our own, is served as an object store on a bad day."""
        return self.own_nodes and "://" not in self.root

    @property
    def at_a_time(self) -> int:
        """Shards, on our own nodes."""
        return 2 * self.cpus

    @property
    def served(self) -> str:
        """The root as the run gets it."""
        return f"{FaultyStore.protocol}://{self.root}" if self.faulty else self.root

    @property
    def folder(self) -> Path:
        """For whatever is no part of the run: beside a local root, and in runs/ where the root is a url."""
        root = Path("runs", self.root.rstrip("/").rpartition("/")[2]) if "://" in self.root else Path(self.root)
        return root.with_name(f"{root.name}.trial")

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    @property
    def log(self) -> Path:
        """Of the drivers."""
        return self.folder / "driver.log"

    @property
    def calls(self) -> Path:
        """Where the faulty store counts its calls."""
        return self.folder / "calls"

    def settings(self) -> dict[str, str]:
        """What makes the store faulty, for the environment of processes to come."""
        return {"FSSPEC_FAULTY": json.dumps({"seed": self.seed, "count_in": str(self.calls)})}


@dataclass
class Driver:
    """A driver process, as it was when it was last looked at."""

    number: int
    process: subprocess.Popen[bytes]
    log: Path
    state_file: Path
    state: DriverState = field(default_factory=DriverState)
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def start(cls, given: Rehearsal, number: int) -> "Driver":
        state_file = given.folder / f"driver{number}.json"
        arguments = [given.served, str(given.shards), str(state_file), str(time.time())]
        with given.log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "trials.rehearsal.driver", *arguments], stdout=out, stderr=subprocess.STDOUT
            )
        return cls(number, process, given.log, state_file)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def killed(self) -> bool:
        return self.process.returncode == -signal.SIGKILL

    def look(self) -> None:
        self.state = DriverState.read(self.state_file)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self.usage = Usage.of(self.process.pid)

    def end(self) -> None:
        """Kill it, unless it has ended."""
        self.process.kill()
        self.process.wait()

    def kill_in_its_work(self) -> None:
        """Raises ShardFailed where it ended before."""
        self.end()
        if not self.killed:
            raise ShardFailed(
                f"driver {self.number} ended (exit code {self.process.returncode}) before it was to be killed; "
                f"{self.log} says why. Where it says nothing, the run was too short: take more shards."
            )


@dataclass(frozen=True)
class Observed:
    """What the rehearsal of one run showed."""

    wall_s: float
    drivers: list[Driver]
    workers_killed: int
    nodes_lost: int


def rehearse(given: Rehearsal) -> Observed:
    """Makes the folder of the rehearsal. Raises ShardFailed where the run does not end well in spite of everything."""
    given.calls.mkdir(parents=True)
    if not given.own_nodes:
        return _perform(given, None)
    with environment(given.settings()), two_nodes(given.cpus) as nodes, environment({"RAY_ADDRESS": nodes.address}):
        return _perform(given, Chaos(nodes, random.Random(given.seed), given.kill_every_s, given.lose_every_s))


def _perform(given: Rehearsal, chaos: Chaos | None) -> Observed:
    started = time.monotonic()
    drivers = [Driver.start(given, 0)]
    try:
        if chaos:
            _watch(given, drivers, chaos, lambda state: state.done.get("marked", 0) >= given.shards / 2)
            drivers[0].kill_in_its_work()
            drivers.append(Driver.start(given, 1))
        _watch(given, drivers, chaos, lambda state: False)
    finally:
        for driver in drivers:
            driver.end()
    if drivers[-1].process.returncode:
        raise ShardFailed(f"the run did not end well; {given.log} says why")
    return Observed(
        wall_s=time.monotonic() - started,
        drivers=drivers,
        workers_killed=chaos.workers_killed if chaos else 0,
        nodes_lost=chaos.nodes_lost if chaos else 0,
    )


def _watch(
    given: Rehearsal, drivers: Sequence[Driver], chaos: Chaos | None, until: Callable[[DriverState], bool]
) -> None:
    """Until the last driver ends or has come so far."""
    said = time.monotonic()
    while drivers[-1].alive and not until(drivers[-1].state):
        time.sleep(LOOK_EVERY_S)
        drivers[-1].look()
        if chaos:
            chaos.strike_where_due()
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            _say(given, drivers, chaos)
    drivers[-1].look()


def _say(given: Rehearsal, drivers: Sequence[Driver], chaos: Chaos | None) -> None:
    done = sum((Counter(driver.state.done) for driver in drivers), Counter())
    line = " · ".join(f"{stage} {shards:,}" for stage, shards in done.items()) + f" of {given.shards:,} shards"
    if chaos:
        line += f" · killed: {chaos.workers_killed} workers, {chaos.nodes_lost} nodes, {len(drivers) - 1} drivers"
    log.info("%s", line)
