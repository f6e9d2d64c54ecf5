"""The state of training as files, and back: weights by part, the optimiser's moments, and where training stands."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from model.checkpoint import Reference, save_pretrained
from model.config import ReViLMConfig
from model.revilm import ReViLM
from model.tokenizer import Tokenizer
from model.training.checkpoints import MODEL, STATE
from model.training.sharding import bare
from model.training.updates import Update
from pipeline.errors import InputError
from pipeline.recipe import Json

OPTIMIZER = "optimizer.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


def gathered(
    model: nn.Module, optimizer: torch.optim.Optimizer, left_out: Collection[str], *, keep: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights, and moments of what is trained, whole and in main memory. Every rank has to call it, for each may hold a
    part of them. left_out: parts of no interest. keep: False where the rank does not write."""
    weights: dict[str, Tensor] = {}
    moments: dict[str, Tensor] = {}
    for name, parameter in bare(model).named_parameters():
        if name.split(".")[0] not in left_out:
            _take(weights, name, parameter.detach(), keep=keep)
        for moment in MOMENTS if parameter in optimizer.state else ():
            _take(moments, f"{moment}.{name}", optimizer.state[parameter][moment], keep=keep)
    return weights, moments


def write_checkpoint(
    folder: Path,
    config: ReViLMConfig,
    tokenizer: Tokenizer,
    tensors: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    referred: Mapping[str, Reference],
    state: Mapping[str, Json],
) -> None:
    """tensors: as `gathered` gives them, of all parts that are not referred to."""
    from safetensors.torch import save_file

    weights, moments = tensors
    with torch.device("meta"):
        whole = ReViLM(config)
    for part in {name.split(".")[0] for name in weights}:
        own = {name.removeprefix(f"{part}."): each for name, each in weights.items() if name.startswith(f"{part}.")}
        whole.get_submodule(part).load_state_dict(own, assign=True)
    save_pretrained(folder / MODEL, whole, tokenizer, references=dict(referred))
    save_file(dict(moments), folder / OPTIMIZER)
    (folder / STATE).write_text(json.dumps(dict(state), indent=1), encoding="utf-8")


def read_moments(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, updates: int) -> None:
    """Into an optimiser that has not stepped yet. updates: that were made. Raises InputError where they are not of
    exactly the parameters that are trained."""
    from safetensors.torch import load_file

    found = load_file(path)
    trained = {name: each for name, each in bare(model).named_parameters() if each.requires_grad}
    due = {f"{moment}.{name}" for moment in MOMENTS for name in trained}
    if found.keys() != due:
        wrong = ", ".join(sorted(found.keys() ^ due)[:5])
        raise InputError(f"{path} does not hold the moments of what is trained; missing or too many: {wrong}")
    for name, parameter in trained.items():
        moments = {moment: _like(found[f"{moment}.{name}"], parameter) for moment in MOMENTS}
        optimizer.state[parameter] = {"step": torch.tensor(float(updates)), **moments}


def _take(kept: dict[str, Tensor], name: str, tensor: Tensor, *, keep: bool) -> None:
    whole = cast(Any, tensor).full_tensor() if isinstance(tensor, DTensor) else tensor
    if keep:
        # A copy, for training goes on; float32 also of frozen matrices that are held in less.
        kept[name] = whole.to("cpu", torch.float32, copy=True)


def _like(tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    if isinstance(parameter, DTensor):
        return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
    return tensor.to(parameter.device)


def write_batches(folder: Path, update: Update) -> None:
    """What an update was made of, for whoever asks why its loss is not finite: tensors by micro-batch, and ids."""
    from safetensors.torch import save_file

    tensors = {
        f"{number}.{micro.source}.{name}": value.contiguous()
        for number, micro in enumerate(update.micro_batches)
        for name, value in vars(micro.batch).items()
        if isinstance(value, Tensor)
    }
    path = folder / f"not_finite_{update.number + 1:08d}.safetensors"
    save_file(tensors, path)
    path.with_suffix(".json").write_text(json.dumps({name: list(ids) for name, ids in update.ids.items()}), "utf-8")
