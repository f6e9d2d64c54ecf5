"""Two workers with a thread each beside one worker with one thread, on the same updates. Imports torch."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import distributed

from model.training.loop import train
from model.training.optimizer import adam_w
from model.training.sharding import wrapped
from model.training.updates import Rank, Update
from model.training.world import World
from trials.benchmarks.model_samples import Captions
from trials.benchmarks.race import spread
from trials.benchmarks.training_data import ready, trainee
from trials.benchmarks.training_loop import PACE, WEIGHT_DECAY

Line = tuple[str, str]
WORKERS = 2


@dataclass(frozen=True)
class Doubling:
    preset: str
    batch: int  # samples of an update, of all workers
    updates: int = 4  # of a repetition
    repetitions: int = 5


def doubling(captions: Captions, case: Doubling) -> Iterator[Line]:
    """By the wall clock, in turns, so other work on the machine falls on both; but two workers need two free cores, and
    the quotient is too low where there are none. CPU seconds tell what it would be."""
    with TemporaryDirectory() as folder, ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        meeting = f"file://{Path(folder, 'meeting').absolute()}"
        works = [pool.submit(_work, number, meeting, captions, case) for number in range(WORKERS)]
        first, *others = [work.result() for work in works]
    what = f"{case.preset}, {case.batch} samples an update in all: two workers"
    gains = [alone.wall / both.wall for alone, both in first]
    yield f"{what} to one, by the wall clock", f"{spread(gains, '{:.2f}')} (target ≥ 1.6)"
    longest = [max(cpu) for cpu in zip(*([both.cpu for _, both in each] for each in (first, *others)), strict=True)]
    gains = [alone.cpu / cpu for (alone, _), cpu in zip(first, longest, strict=True)]
    yield f"{what} to one, by CPU seconds of the busier one", spread(gains, "{:.2f}")


@dataclass(frozen=True)
class Took:
    wall: float  # s
    cpu: float


def _work(number: int, meeting: str, captions: Captions, case: Doubling) -> list[tuple[Took, Took]]:
    """In each process → by repetition: the first one alone while the other waits, and both."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=number, world_size=WORKERS)
    both = World.here()
    alone = World(both.device, Rank())
    mine = [
        ready(captions, trainee(case.preset, captions).config, case.batch, "patch tokens", case.updates, rank)
        for rank in (alone.rank, both.rank)
    ]
    took = []
    for _ in range(case.repetitions + 1):
        single = _timed(case, captions, alone, mine[0] if both.leads else [], both)
        took.append((single, _timed(case, captions, both, mine[1], both)))
    distributed.destroy_process_group()
    return took[1:]  # the first one warms up


def _timed(case: Doubling, captions: Captions, world: World, updates: Sequence[Update], both: World) -> Took:
    """Of an equal model each time; until both are here again."""
    model = wrapped(trainee(case.preset, captions), world)
    optimizer = adam_w(model, weight_decay=WEIGHT_DECAY)
    both.wait()
    wall, cpu = time.monotonic(), time.process_time()
    train(model, optimizer, updates, PACE, world, lambda _: None)
    both.wait()
    return Took(time.monotonic() - wall, time.process_time() - cpu)
