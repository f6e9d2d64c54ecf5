"""The training loop beside a bare one on the same tensors, and what it waits for its data. Imports torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import torch

from model.revilm import ReViLM
from model.training.loop import Pace, Stepped, train
from model.training.optimizer import adam_w, trained_parameters
from model.training.updates import Update, loaded
from model.training.world import World
from trials.benchmarks.model_samples import Captions
from trials.benchmarks.race import in_turns, one_thread, ratios, spread
from trials.benchmarks.training_data import OnDisk, ready, trainee

Line = tuple[str, str]
RATE, WEIGHT_DECAY = 1e-4, 0.1
PACE = Pace(learning_rate=RATE)


@dataclass(frozen=True)
class Looping:
    preset: str
    batch: int  # samples of an update
    updates: int = 6  # of a repetition
    repetitions: int = 5


@dataclass(frozen=True)
class Feeding:
    preset: str
    batch: int
    updates: int = 20
    first: int = 4  # updates before those that count: the process starts, and opens its shards


@dataclass
class Kept:
    """What the loop told of its updates."""

    stepped: list[Stepped] = field(default_factory=list)

    def __call__(self, stepped: Stepped) -> None:
        self.stepped.append(stepped)


def beside_bare(captions: Captions, case: Looping) -> Iterator[Line]:
    """Patch tokens are given, so that the loop's own share is as large as it gets. CPU seconds on one thread."""
    model = trainee(case.preset, captions)
    updates = ready(captions, model.config, case.batch, "patch tokens", case.updates)
    works = {"trainer": _trainer(model, updates), "bare": _bare(model, updates)}
    with one_thread():
        in_turns(works, 1)  # warms up
        times = in_turns(works, case.repetitions)
    what = f"{case.preset}, {case.batch} samples an update"
    yield f"{what}: bare loop", f"{1000 * median(times['bare']) / case.updates:,.0f} ms an update"
    told = spread(ratios(times["bare"], times["trainer"]), "{:.3f}")
    yield f"{what}: the trainer's speed to the bare loop's", f"{told} (target ≥ 0.95)"


def waits(on_disk: OnDisk, case: Feeding) -> Iterator[Line]:
    """Pictures are decoded in one process beside the step, which has one thread. By the wall clock."""
    model = trainee(case.preset, on_disk.captions)
    updates = on_disk.updates(model.config, case.batch, "pixels")
    kept = Kept()
    with one_thread():
        stream = loaded(updates, 0, case.first + case.updates, processes=1)
        train(model, adam_w(model, weight_decay=WEIGHT_DECAY), stream, PACE, World.here(), kept)
    counted = [stepped.seconds for stepped in kept.stepped[case.first :]]
    wait, whole = sum(each["wait"] for each in counted), sum(sum(each.values()) for each in counted)
    what = f"{case.preset}, {case.batch} pictures an update, one process decodes: wait for data"
    yield what, f"{wait / whole:.2%} of {1000 * whole / case.updates:,.0f} ms (target ≤ 5 %)"


def _trainer(model: ReViLM, updates: Sequence[Update]) -> Callable[[], None]:
    return partial(train, model, adam_w(model, weight_decay=WEIGHT_DECAY), updates, PACE, World.here(), lambda _: None)


def _bare(model: ReViLM, updates: Sequence[Update]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(trained_parameters(model), lr=RATE, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)

    def steps() -> None:
        for update in updates:
            optimizer.zero_grad()
            for micro in update.micro_batches:
                model(micro.batch).mean().backward()
            optimizer.step()

    return steps
