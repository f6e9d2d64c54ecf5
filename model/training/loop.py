"""The training loop: from updates to trained weights, on one process or on many.

An update is one step of the optimiser on every source: its gradient is Σ λ_s ∇ L_s, where L_s is the mean over all loss
tokens of source s in the update, of all ranks and micro-batches (Flamingo §2.4).
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from model.loss import Loss
from model.training.optimizer import set_rate, trained_parameters, warmed_up
from model.training.samples import REASONS
from model.training.updates import MicroBatch, Update
from model.training.world import World
from pipeline.errors import PipelineError


class NotFinite(PipelineError):
    """The loss or the gradient is not a number. The weights are those before the update."""

    def __init__(self, update: Update, what: str) -> None:
        super().__init__(f"update {update.number + 1}: {what}")  # as people count them
        self.update = update


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a step is, apart from its samples."""

    learning_rate: float
    warm_up: int = 0  # updates
    clip: float = 1.0  # the gradient's norm at most
    weights: Mapping[str, float] = field(default_factory=dict)  # of sources; 1 where it is not named
    precision: Literal["fp32", "bf16"] = "fp32"
    recompute: Literal["none", "layers"] = "none"
    seed: int = 0


@dataclass(frozen=True)
class Stepped:
    """What an update did, over all ranks."""

    update: Update  # this rank's part
    losses: dict[str, float]  # by source: nats a token
    tokens: int  # with a loss
    skipped: dict[str, int]  # reason → samples
    learning_rate: float
    gradient_norm: float
    seconds: dict[str, float]  # wait, compute, step: of this rank


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    updates: Iterable[Update],
    pace: Pace,
    world: World,
    after: Callable[[Stepped], None],
) -> None:
    """model: a ReViLM on world.device with frozen parts, or one that model.training.sharding wrapped.

    after: called when the weights are those of the update. Raises NotFinite, on all ranks, before they are touched."""
    clock = Clock()
    for update in clock.waiting(updates):
        torch.manual_seed(_seed(pace.seed, update.number, world.rank.number))
        optimizer.zero_grad()
        counts = _counts(update, world)
        sums = {name: torch.zeros((), device=world.device) for name in counts}
        for number, micro in enumerate(update.micro_batches, 1):
            with _synchronised(model, now=number == len(update.micro_batches)):
                with autocast(world, pace):
                    loss = model(micro.batch.to(world.device), recompute=pace.recompute)
                share = _share(loss, counts[micro.source])
                (share * (pace.weights.get(micro.source, 1.0) * world.rank.of)).backward()  # type: ignore[no-untyped-call]
            sums[micro.source] += share.detach()
        losses = dict(zip(sums, world.sum(torch.stack(list(sums.values()))).tolist(), strict=True))
        clock.lap("compute")
        norm = float(_whole(nn.utils.clip_grad_norm_(trained_parameters(model), pace.clip)))
        _refuse_not_finite(update, losses, norm)
        rate = warmed_up(pace.learning_rate, update.number, pace.warm_up)
        set_rate(optimizer, rate)
        optimizer.step()
        clock.lap("step")
        tokens = sum(captions for captions, _ in counts.values())
        after(Stepped(update, losses, tokens, _skipped(update, world), rate, norm, clock.seconds()))


def _counts(update: Update, world: World) -> dict[str, tuple[int, int]]:
    """By source: loss tokens of captions and of retrieved captions, over all ranks and micro-batches."""
    names = list(dict.fromkeys(micro.source for micro in update.micro_batches))
    here = [_tokens([micro for micro in update.micro_batches if micro.source == name]) for name in names]
    return {name: (int(a), int(b)) for name, (a, b) in zip(names, world.sum(torch.tensor(here)).tolist(), strict=True)}


def _skipped(update: Update, world: World) -> dict[str, int]:
    counts = world.sum([update.skipped.get(reason, 0) for reason in REASONS]).tolist()
    return {reason: int(count) for reason, count in zip(REASONS, counts, strict=True) if count}


def _tokens(micro_batches: list[MicroBatch]) -> tuple[int, int]:
    return sum(each.caption_tokens for each in micro_batches), sum(each.retrieved_tokens for each in micro_batches)


def _share(loss: Loss, counts: tuple[int, int]) -> Tensor:
    """A micro-batch's part of the source's mean."""
    captions, retrieved = (max(count, 1) for count in counts)
    return loss.caption / captions + loss.retrieved_weight * loss.retrieved / retrieved


def _synchronised(model: nn.Module, *, now: bool) -> AbstractContextManager[Any]:
    """Gradients go from rank to rank with the last micro-batch only."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return nullcontext() if now else model.no_sync()
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)
    return nullcontext()


def autocast(world: World, pace: Pace) -> AbstractContextManager[Any]:
    return torch.autocast(world.device.type, torch.bfloat16, enabled=pace.precision == "bf16")


def _whole(norm: Tensor) -> Tensor:
    """Of sharded gradients every rank knows its part."""
    sharded: Any = norm
    return sharded.full_tensor() if isinstance(norm, DTensor) else norm


def _refuse_not_finite(update: Update, losses: Mapping[str, float], norm: float) -> None:
    bad = [f"the loss of {name} is {loss}" for name, loss in losses.items() if not math.isfinite(loss)]
    if not math.isfinite(norm):
        bad.append(f"the norm of the gradient is {norm}")
    if bad:
        raise NotFinite(update, " and ".join(bad))


def _seed(*numbers: int) -> int:
    """For what is drawn within an update: the same after a resume."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


class Clock:
    """Seconds of an update, by what they went to."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def waiting(self, updates: Iterable[Update]) -> Iterator[Update]:
        self._last = time.perf_counter()
        for update in updates:
            self.lap("wait")
            yield update
            self._last, self._laps = time.perf_counter(), {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = self._laps.get(name, 0.0) + now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        return dict(self._laps)
