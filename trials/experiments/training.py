"""A stage's training by the project's own loop, from samples in memory, and what it cost."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model.flops import training_flops
from model.freezing import Stage, freeze
from model.revilm import ReViLM
from model.sequence import SequenceBuilder
from model.tokenizer import Tokenizer
from model.training.loop import Pace, Stepped, train
from model.training.optimizer import adam_w
from model.training.samples import Listed, Sample
from model.training.updates import Batching, Share, Updates, loaded
from model.training.world import World
from trials.experiments.arms import Course

WEIGHT_DECAY = 0.1
TOLD_EVERY = 200  # updates

log = logging.getLogger("pipeline.experiments")  # jobs show what `pipeline` has to say


@dataclass(frozen=True)
class Spent:
    updates: int = 0
    samples: int = 0
    tokens: int = 0  # with a loss
    flops: int = 0  # by model.flops
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Part:
    """A source of samples, and how many of them an update takes."""

    samples: Sequence[Sample]
    batch: int


def train_stage(
    model: ReViLM, stage: Stage, parts: Mapping[str, Part], course: Course, tokenizer: Tokenizer, seed: int
) -> Spent:
    """Changes the model's weights. parts: by name; the loss of each is weighted alike."""
    freeze(model, stage)
    trained = {name.split(".")[0] for name, each in model.named_parameters() if each.requires_grad}
    builder = SequenceBuilder(model.config, tokenizer)
    sources = {name: Listed(part.samples) for name, part in parts.items()}
    shares = {name: Share(part.batch) for name, part in parts.items()}
    batching = Batching(micro_batch=max(part.batch for part in parts.values()))
    updates = Updates(lambda: sources, shares, builder, batching, seed=seed)
    steps: list[Spent] = []

    def after(stepped: Stepped) -> None:
        works = [micro.work for micro in stepped.update.micro_batches]
        flops = sum(sum(training_flops(model.config, work, trained=trained).values()) for work in works)
        steps.append(Spent(1, stepped.update.samples, stepped.tokens, flops))
        if len(steps) % TOLD_EVERY == 0:
            log.info("%s: update %d of %d, %s", stage, len(steps), course.updates, stepped.losses)

    started = time.process_time()
    pace = Pace(learning_rate=course.learning_rate, warm_up=course.warm_up, seed=seed)
    optimizer = adam_w(model, weight_decay=WEIGHT_DECAY)
    train(model, optimizer, loaded(updates, 0, course.updates), pace, World.here(), after)
    cpu_s = time.process_time() - started
    samples, tokens, flops = (sum(getattr(step, name) for step in steps) for name in ("samples", "tokens", "flops"))
    return Spent(course.updates, samples, tokens, flops, cpu_s)
