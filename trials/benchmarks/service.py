"""The caption service beside the captioner that it runs, and under load while a replica of it is killed.

Service, replicas and clients are processes of one machine, and share its cores; the numeric libraries of each replica,
and of the captioner alone, have one thread.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.threads import set_threads
from trials.benchmarks.clock import seconds
from trials.benchmarks.service_clients import Told
from trials.processes import descendants, title

ROOT = Path(__file__).parents[2]
CHECKPOINT, INDEX = "runs/demo-train/pretrain", "runs/demo"
CLIENTS = (1, 8, 32)
PICTURES = 64
TOGETHER = 16  # as replicas do
START_S = 120.0
Line = tuple[str, str]


@dataclass(frozen=True)
class Running:
    address: str
    process: int

    def replicas(self) -> list[int]:
        return [each for each in descendants(self.process) if title(each).startswith("ray::ServeReplica")]


def service(checkpoint: str = CHECKPOINT, index: str = INDEX, lasting_s: float = 20.0) -> Iterator[Line]:
    """checkpoint, index: as jobs/serve.py takes them. lasting_s: of every load."""
    if not Path(checkpoint).exists():
        yield "skipped", f"{checkpoint} is missing: `make train-demo` makes it"
        return
    with tempfile.TemporaryDirectory() as folder:
        bodies = _pictures(index, Path(folder))
        alone, together = _direct(checkpoint, index, bodies)
        yield "captioner in one process", f"{alone:.1f} captions/s one by one, {together:.1f} in batches of {TOGETHER}"
        with running(checkpoint, index) as one:
            load(one, folder, 8, 2.0)  # warms up
            for clients in CLIENTS:
                told = load(one, folder, clients, lasting_s)
                rate = sum(each.outcomes == ("200",) for each in told) / lasting_s
                beside = f"{rate / alone:.1f} × the captioner one by one, {rate / together:.2f} × in batches"
                yield f"one replica, clients: {clients}", f"**{rate:.1f} captions/s** ({beside}), {_latency(told)}"
        for replicas, clients in ((2, 8), (2, 32), (1, 32)):
            with running(checkpoint, index, "--replicas", str(replicas)) as some:
                killed = load(some, folder, clients, lasting_s, kill_after_s=lasting_s / 4)
            yield f"one of {replicas} replicas killed, clients: {clients}", _fates(killed)


@contextmanager
def running(checkpoint: str, index: str, *options: str) -> Iterator[Running]:
    """jobs/serve.py, once it answers."""
    job = [sys.executable, str(ROOT / "jobs" / "serve.py"), checkpoint, "--index", index]
    command = [*job, "--port", "0", "--cpus", "1", *options]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        try:
            assert process.stdout is not None
            said = next((line for line in process.stdout if " answers" in line), "")
            address = re.match(r"(http://[^/]+)/ answers", said)
            if address is None:
                log.seek(0)
                raise RuntimeError(f"the service did not start: {log.read()[-2000:]}")
            yield Running(address[1], process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=START_S)


def _pictures(index: str, folder: Path) -> list[bytes]:
    """Of the index' own pairs."""
    from stages.index import Retriever

    retriever = Retriever(index)
    bodies = [retriever.picture(pair) for pair in retriever.pairs(range(min(PICTURES, retriever.index.rows)))]
    for number, body in enumerate(bodies):
        (folder / f"{number:04}.jpg").write_bytes(body)
    return bodies


def _direct(checkpoint: str, index: str, bodies: Sequence[bytes]) -> tuple[float, float]:
    """Captions/s one by one, and in batches."""
    from model.evaluation.answerer import Decoding
    from model.evaluation.captioner import Captioner
    from model.evaluation.given import Given

    set_threads(1)
    captioner = Captioner.open(checkpoint, index, Decoding())

    def rate(together: int) -> float:
        return len(bodies) / seconds(lambda: list(captioner.captions((Given("", body) for body in bodies), together)))

    rate(TOGETHER)  # warms up
    return rate(1), rate(TOGETHER)


def load(some: Running, folder: str, clients: int, lasting_s: float, kill_after_s: float | None = None) -> list[Told]:
    command = [sys.executable, "-m", "trials.benchmarks.service_clients", some.address, folder, str(clients)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    load = subprocess.Popen([*command, str(lasting_s)], stdout=subprocess.PIPE, text=True, env=environment)
    if kill_after_s:
        time.sleep(kill_after_s)
        os.kill(some.replicas()[0], signal.SIGKILL)
    told, _ = load.communicate()
    return [Told(each["seconds"], tuple(each["outcomes"])) for each in json.loads(told)]


def _latency(told: Sequence[Told]) -> str:
    middle, last = np.percentile([1000 * each.seconds for each in told], [50, 99])
    once = all(each.outcomes == ("200",) for each in told)
    return f"p50 {middle:.0f} ms, p99 {last:.0f} ms{'' if once else f'; {_fates(told)}'}"


def _fates(told: Sequence[Told]) -> str:
    fates = Counter(", then ".join(each.outcomes) for each in told)
    lost = sum(each.outcomes[-1] != "200" for each in told)
    shown = "; ".join(f"{number:,} × {fate}" for fate, number in fates.most_common())
    slowest = max(each.seconds for each in told)
    return f"{len(told):,} requests, lost {lost} (target 0): {shown}; the slowest took {slowest:.1f} s"
