"""A model made ready for the processes that train it: where its weights lie, in which precision, compiled or not."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from model.revilm import ReViLM
from model.training.world import World

Sharding = Literal["replicated", "fsdp"]


def wrapped(
    model: ReViLM,
    world: World,
    *,
    sharding: Sharding = "replicated",
    precision: Literal["fp32", "bf16"] = "fp32",
    compiled: bool = False,
) -> nn.Module:
    """On world.device. replicated: a whole copy on every rank (DDP). fsdp: every rank holds a part of each weight
    (FSDP2), so that large models fit. bf16: the matrices of frozen parts are stored so; what is trained stays fp32."""
    if precision == "bf16":
        _narrow_frozen_matrices(model)
    model.to(world.device)
    if sharding == "fsdp":
        _shard(model, world)
    if compiled:
        model.compile(dynamic=True)
    if sharding == "replicated" and world.rank.of > 1:
        return nn.parallel.DistributedDataParallel(model)
    return model


def bare(model: nn.Module) -> ReViLM:
    """The ReViLM inside."""
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    assert isinstance(inner, ReViLM), type(inner)
    return inner


@contextmanager
def evaluated_as_whole(model: nn.Module) -> Iterator[ReViLM]:
    """The ReViLM inside, of which any method may be called: what no unit of its own holds is whole meanwhile."""
    inner = bare(model)
    if not isinstance(inner, FSDPModule):
        yield inner
        return
    inner.unshard()
    try:
        yield inner
    finally:
        inner.reshard()


def _narrow_frozen_matrices(model: nn.Module) -> None:
    """Autocast would narrow them in every step. Norms stay, and tables: what is added up from layer to layer begins
    with their rows, and is as wide as these."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not module.weight.requires_grad:
            module.to(torch.bfloat16)


def _shard(model: ReViLM, world: World) -> None:
    """Unit by unit, so that only one is whole at a time. Frozen and trained weights may share a unit."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # A product's result is a view; nothing changes it in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(world.device.type, (world.rank.of,))
    for unit in _units(model):
        fully_shard(unit, mesh=mesh)
    # Else the first unit that is called takes itself for the root, and an evaluation calls others than the model.
    fully_shard.state(model)._lazy_init()  # type: ignore[attr-defined]


def _units(model: ReViLM) -> Iterator[nn.Module]:
    """Modules that every pass calls once, on all ranks, for the ranks exchange weights whenever they are called. So the
    image encoder is none: where pictures are patch tokens, only a rank without pictures calls it."""
    encoder = model.text_encoder
    for block in [*model.language_model.blocks, *(encoder.blocks if encoder else [])]:
        yield from (block.get_submodule(half) for half in ("attention", "feed_forward"))
    for layer in [*model.gated_cross_attention.values(), *model.retrieval_cross_attention.values()]:
        yield layer.get_submodule("key_value")  # called before the layer, for all of its text
        yield layer
    yield model
