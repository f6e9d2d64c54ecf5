"""AdamW's groups and its rate."""

import pytest
import torch
from torch import nn

from model.training.optimizer import adam_w, warmed_up
from model.training.world import World
from tests.model.small_models import Family
from tests.training.small_training import Training


def decayed(model: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    return {
        name_of[parameter]
        for group in optimizer.param_groups
        for parameter in group["params"]
        if group["weight_decay"] == 0.1
    }


def gated(layer: int) -> set[str]:
    products = ("query", "key_value", "output", "up", "down")
    return {f"gated_cross_attention.{layer}.{product}.weight" for product in products}


def retro(layer: int) -> set[str]:
    return {f"retrieval_cross_attention.{layer}.{product}.weight" for product in ("query", "key_value", "output")}


def block(where: str) -> set[str]:
    products = ("attention.queries_keys_values", "attention.output", "feed_forward.up", "feed_forward.down")
    return {f"{where}.{product}.weight" for product in products}


SIGHT = gated(1) | gated(2) | gated(3)
RETRIEVAL = retro(2) | retro(3) | block("text_encoder.blocks.0") | block("text_encoder.blocks.1")
TEXT = block("language_model.blocks.0") | block("language_model.blocks.1") | block("language_model.blocks.2")
TOWER = {
    "image_encoder.conv1.weight",
    "image_encoder.transformer.resblocks.0.attn.in_proj_weight",
    "image_encoder.transformer.resblocks.0.attn.out_proj.weight",
    "image_encoder.transformer.resblocks.0.mlp.c_fc.weight",
    "image_encoder.transformer.resblocks.0.mlp.c_proj.weight",
}


def test_pretraining_decays_the_matrices_of_the_gated_and_of_the_retrieval_layers() -> None:
    model, optimizer = Training(stage="pretrain").start(World.here())
    assert decayed(model, optimizer) == SIGHT | RETRIEVAL


@pytest.mark.parametrize(("family", "head"), [("gpt2", set()), ("llama", {"language_model.head.weight"})])
def test_finetuning_decays_all_matrices_but_the_tables_and_the_resampler(family: Family, head: set[str]) -> None:
    model, optimizer = Training(stage="finetune", family=family).start(World.here())
    assert decayed(model, optimizer) == SIGHT | RETRIEVAL | TEXT | TOWER | head


def test_the_groups_hold_what_is_trained_once_and_nothing_else() -> None:
    model, optimizer = Training(stage="pretrain").start(World.here())
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    assert len(held) == len(trained)
    assert set(held) == trained


def test_where_only_norms_are_trained_there_is_no_empty_group() -> None:
    model = Training().model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name)
    assert len(adam_w(model, weight_decay=0.1).param_groups) == 1


def test_the_rate_rises_in_a_line_and_stays() -> None:
    rates = [warmed_up(0.8, update, 4) for update in range(7)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8])
    assert warmed_up(0.8, 0, 0) == 0.8
