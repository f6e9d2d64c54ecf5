"""Two processes that train together, and what came of it. They start once for all tests, for each imports for seconds.

A process answers all that is asked, one after the other, and writes the answers down.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from model.sequence import Chunk
from model.training.loop import NotFinite, Pace
from model.training.persistence import gathered, read_moments
from model.training.samples import Listed, Sample
from model.training.sharding import evaluated_as_whole, wrapped
from model.training.updates import Batching
from model.training.world import World
from tests.model.small_models import batch_of, picture
from tests.training.small_sources import captions, damaged, pairs
from tests.training.small_training import Learned, Outcome, Training, outcome

SECONDS = 60  # within which one process has to hear of the other

TWO_SOURCES = Training(
    sources={"pairs": Listed(pairs(14, 1)), "more": Listed(pairs(9, 2))},
    batches={"pairs": 7, "more": 3},
    pace=Pace(learning_rate=1e-2, weights={"more": 2.0}),
)
CAPTIONS = Training(sources={"pairs": Listed(captions(14, 1))}, stage="retrofit")
BAD_ON_ONE = Training(sources={"pairs": damaged(pairs(14, 1), [7, 9, 11])})  # all that the second rank has of update 1
BAD_ON_ALL = Training(sources={"pairs": damaged(pairs(14, 1), range(6, 12))})
PREFIX = Training(mode="prefix", prefix_loss=0.4)
LLAMA = Training(mode="none", family="llama", batching=Batching(micro_batch=3, rows="packed"))

MICRO_4 = replace(TWO_SOURCES, batching=Batching(micro_batch=4))
NARROW = replace(MICRO_4, pace=replace(MICRO_4.pace, precision="bf16"))
RECOMPUTED = replace(MICRO_4, pace=replace(MICRO_4.pace, recompute="layers"))
ONE_SAMPLE = Training(batches={"pairs": 1})
LANGUAGE = replace(CAPTIONS, stage="language", mode="none")


def sharded(training: Training) -> Training:
    return replace(training, sharding="fsdp")


def not_a_number_on(rank: int) -> Training:
    """In update 1."""
    broken = Sample("broken", (Chunk(image=picture(1) * float("nan"), text="a dog"),))
    return Training(sources={"pairs": damaged(pairs(14, 1), [6 + rank], instead=broken)})


@dataclass(frozen=True)
class Stopped:
    told: str
    before: Outcome
    after: Outcome


def stopped(training: Training) -> Stopped:
    """By update 1, which is not finite."""
    world = World.here()
    model, optimizer = training.start(world)
    steps = training.go_on(model, optimizer, world, [0])
    before = Outcome(steps, *gathered(model, optimizer, {}, keep=True))
    try:
        training.go_on(model, optimizer, world, [1])
    except NotFinite as error:
        return Stopped(str(error), before, Outcome(steps, *gathered(model, optimizer, {}, keep=True)))
    raise AssertionError("it went on")


def reductions(training: Training) -> int:
    """How often gradients go from rank to rank in an update of a model that they fit into at once."""
    world = World.here()
    model, optimizer = training.start(world)
    assert isinstance(model, DistributedDataParallel)
    counted: list[int] = []

    def count(group: distributed.ProcessGroup, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        counted.append(bucket.index())
        return allreduce_hook(group, bucket)

    model.register_comm_hook(distributed.group.WORLD, count)
    training.go_on(model, optimizer, world, [1])  # the first update still makes the buckets
    return len(counted)


@dataclass(frozen=True)
class Handed:
    before: tuple[Learned, Learned]  # weights and moments that are handed over
    after: tuple[Learned, Learned]  # as they are read back from there


def handed_on(training: Training, folder: Path) -> tuple[list[Handed], list[float], Outcome]:
    """An update replicated, one sharded, one replicated, each from the weights and moments of the one before; and the
    loss of a sample before and after the second, which every rank asks with a sample of its own."""
    world = World.here()
    model, optimizer = training.start(world)
    training.go_on(model, optimizer, world, [0])
    handed, asked = [], []
    for number, phase in ((1, sharded(training)), (2, training)):
        before = gathered(model, optimizer, {}, keep=True)
        model, optimizer = taken_over(phase, before, number, folder)
        handed.append(Handed(before, gathered(model, optimizer, {}, keep=True)))
        asked.append(loss_of_one(model, world.rank.number))
        steps = phase.go_on(model, optimizer, world, [number])
    return handed, asked, Outcome(steps, *gathered(model, optimizer, {}, keep=True))


def taken_over(
    training: Training, tensors: tuple[Learned, Learned], updates: int, folder: Path
) -> tuple[nn.Module, torch.optim.Optimizer]:
    from safetensors.torch import save_file

    world = World.here()
    path = folder / f"{world.rank.number}_{updates}.safetensors"
    save_file(tensors[1], path)
    begun = training.model()
    begun.load_state_dict(tensors[0])
    model = wrapped(begun, world, sharding=training.sharding)
    optimizer = training.optimizer(model)
    read_moments(path, model, optimizer, updates)
    return model, optimizer


def loss_of_one(model: nn.Module, number: int) -> float:
    """Of the sample of that number, by methods of the model that are not forward()."""
    with evaluated_as_whole(model) as whole, torch.no_grad():
        batch = batch_of(whole.config, [[pairs(2, 5)[number].chunks]])
        hidden = whole.hidden(whole.embed(batch.tokens), whole.view_of(batch), whole.condition(batch))
        return float(whole.loss(batch, hidden).mean())


ASKED: dict[str, Callable[[Path], Any]] = {
    "two sources": lambda _: outcome(TWO_SOURCES),
    "captions": lambda _: outcome(CAPTIONS),
    "bad samples on one rank": lambda _: outcome(BAD_ON_ONE, [1, 2]),
    "bad samples on all ranks": lambda _: outcome(BAD_ON_ALL, [1, 2]),
    "prefix": lambda _: outcome(PREFIX),
    "llama": lambda _: outcome(LLAMA),
    "one sample": lambda _: outcome(ONE_SAMPLE),
    "not a number on rank 0": lambda _: stopped(not_a_number_on(0)),
    "not a number on rank 1": lambda _: stopped(not_a_number_on(1)),
    "reductions": lambda _: reductions(TWO_SOURCES),
    "sharded: two sources": lambda _: outcome(sharded(MICRO_4)),
    "sharded: bad samples on one rank": lambda _: outcome(sharded(BAD_ON_ONE), [1]),
    "handed on": lambda folder: handed_on(MICRO_4, folder),
}
ASKED_SLOWLY: dict[str, Callable[[Path], Any]] = {
    "language": lambda _: outcome(LANGUAGE),
    "narrow": lambda _: outcome(NARROW),
    "sharded: accumulated": lambda _: outcome(sharded(TWO_SOURCES), range(3)),
    "sharded: captions": lambda _: outcome(sharded(CAPTIONS)),
    "sharded: prefix": lambda _: outcome(sharded(PREFIX)),
    "sharded: llama": lambda _: outcome(sharded(LLAMA)),
    "sharded: language": lambda _: outcome(sharded(LANGUAGE)),
    "sharded: recomputed": lambda _: outcome(sharded(RECOMPUTED)),
    "sharded: narrow": lambda _: outcome(sharded(NARROW)),
    "sharded: not a number on rank 0": lambda _: stopped(sharded(not_a_number_on(0))),
    "sharded: not a number on rank 1": lambda _: stopped(sharded(not_a_number_on(1))),
}


def start_two(folder: Path, *, slowly: bool = False) -> list[dict[str, Any]]:
    """What each of the processes answered."""
    spawn(_answer, args=(folder, slowly), nprocs=2)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]


def _answer(rank: int, folder: Path, slowly: bool) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", f"file://{folder}/rendezvous", timedelta(seconds=SECONDS), world_size=2, rank=rank
    )
    asked = ASKED_SLOWLY if slowly else ASKED
    torch.save({name: ask(folder) for name, ask in asked.items()}, folder / f"rank_{rank}.pt")
    distributed.destroy_process_group()
