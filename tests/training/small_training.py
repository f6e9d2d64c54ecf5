"""Training of small models on samples in memory, for the tests of the trainer: the same on one process as on many."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from model.config import ReViLMConfig
from model.freezing import Stage, freeze
from model.revilm import ReViLM
from model.sequence import SequenceBuilder
from model.training.loop import Pace, Stepped, train
from model.training.optimizer import adam_w
from model.training.persistence import gathered
from model.training.samples import Source
from model.training.sharding import Sharding, wrapped
from model.training.updates import Batching, Rank, Share, Updates
from model.training.world import World
from tests.model.small_models import Family, Letters, Mode, small_config, small_model
from tests.training.small_sources import Damaged, given, pairs

ALONE = Rank()
Learned = dict[str, Tensor]
"""By name: weights, gradients or moments."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that a small training is made of."""

    sources: Mapping[str, Source] = field(default_factory=lambda: {"pairs": Damaged(pairs(14, 1))})
    batches: Mapping[str, int] = field(default_factory=lambda: {"pairs": 6})
    batching: Batching = Batching(micro_batch=2)
    mode: Mode = "cross"
    family: Family = "gpt2"
    stage: Stage = "pretrain"
    dropout: float = 0.0
    prefix_loss: float = 0.0
    pace: Pace = Pace(learning_rate=1e-2)
    sharding: Sharding = "replicated"
    compiled: bool = False
    weight_decay: float = 0.1

    @property
    def config(self) -> ReViLMConfig:
        vision = self.stage not in ("language", "retrofit")
        return small_config(self.family, self.mode, vision=vision, dropout=self.dropout, prefix_loss=self.prefix_loss)

    def model(self) -> ReViLM:
        model = small_model(self.config)
        freeze(model, self.stage, train_retrieval=True)
        return model

    def updates(self, rank: Rank = ALONE) -> Updates:
        builder = SequenceBuilder(self.config, Letters())
        shares = {name: Share(batch) for name, batch in self.batches.items()}
        return Updates(partial(given, self.sources), shares, builder, self.batching, rank=rank)

    def start(self, world: World) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = wrapped(
            self.model(), world, sharding=self.sharding, precision=self.pace.precision, compiled=self.compiled
        )
        return model, self.optimizer(model)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """With a larger epsilon: AdamW moves a weight as far for the rounding of a gradient of 0 as for any other."""
        optimizer = adam_w(model, weight_decay=self.weight_decay)
        for group in optimizer.param_groups:
            group["eps"] = 1e-3
        return optimizer

    def go_on(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        world: World,
        numbers: Iterable[int],
        after: Callable[[Stepped], object] = lambda _: None,
    ) -> list[Stepped]:
        updates = self.updates(world.rank)
        done: list[Stepped] = []

        def told(stepped: Stepped) -> None:
            done.append(stepped)
            after(stepped)

        train(model, optimizer, (updates[number] for number in numbers), self.pace, world, told)
        return done


@dataclass(frozen=True)
class Outcome:
    steps: list[Stepped]
    weights: Learned
    moments: Learned

    @property
    def losses(self) -> list[float]:
        return [loss for step in self.steps for loss in step.losses.values()]

    @property
    def norms(self) -> list[float]:
        return [step.gradient_norm for step in self.steps]


def outcome(training: Training, updates: Iterable[int] = range(2)) -> Outcome:
    """On as many processes as there are."""
    world = World.here()
    model, optimizer = training.start(world)
    steps = training.go_on(model, optimizer, world, updates)
    return Outcome(steps, *gathered(model, optimizer, {}, keep=True))


def gradients(training: Training, model: ReViLM | None = None) -> Learned:
    """Of the first update, on one process."""
    world = World.here()
    model = model or training.model()
    found: Learned = {}

    def keep(_: Stepped) -> None:
        found.update({name: each.grad for name, each in model.named_parameters() if each.grad is not None})

    unclipped = replace(training, pace=replace(training.pace, clip=float("inf")))
    unclipped.go_on(model, adam_w(model, weight_decay=0.0), world, [0], keep)
    return found


def furthest(found: Learned, due: Learned) -> float:
    """The largest difference of any tensor, as a share of that tensor's largest value (or of 1e-3, if that is less)."""
    assert found.keys() == due.keys()
    return max(float((found[name] - due[name]).abs().max() / due[name].abs().max().clamp(min=1e-3)) for name in due)
