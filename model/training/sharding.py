"""A model made ready for the processes that train it: where its weights lie, in which precision, compiled or not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

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
    inner: Any = bare(model)
    sharded = hasattr(inner, "unshard")
    if sharded:
        inner.unshard()
    try:
        yield inner
    finally:
        if sharded:
            inner.reshard()


def _narrow_frozen_matrices(model: nn.Module) -> None:
    """Autocast would narrow them in every step. Norms stay: they are computed in fp32."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d) and not module.weight.requires_grad:
            module.to(torch.bfloat16)


def _shard(model: ReViLM, world: World) -> None:
    """Unit by unit, so that only one is whole at a time. Frozen and trained weights may share a unit."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(world.device.type, (world.rank.of,))
    for unit, methods in _units(model):
        fully_shard(unit, mesh=mesh)
        for method in methods:
            register_fsdp_forward_method(unit, method)


def _units(model: ReViLM) -> Iterator[tuple[Any, list[str]]]:
    """With the methods besides forward that the model calls them by."""
    for block in model.language_model.blocks:
        yield block, ["attend", "transform"]
    for layers in (model.gated_cross_attention, model.retrieval_cross_attention):
        for layer in layers.values():
            yield layer, ["keys_values"]
    if model.image_encoder is not None:
        yield model.image_encoder, []
    yield model, []
