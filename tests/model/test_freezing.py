"""What each stage of training changes, and what it leaves alone."""

import pytest
import torch
from torch import Tensor

from model.freezing import Stage, freeze, parameter_table, train_mode, trainable_names
from model.revilm import ReViLM
from model.sequence import Chunk
from tests.model.small_models import (
    FAMILIES,
    MODES,
    Family,
    Mode,
    batch_of,
    pair,
    small_config,
    with_pixels,
)

SIGHT = {"special_tokens", "resampler", "gated_cross_attention"}
RETRIEVAL = {"text_encoder", "retrieval_cross_attention"}


def make_model(mode: Mode, *, vision: bool = True, tied: bool = True, family: Family = "gpt2") -> ReViLM:
    """As a new model begins."""
    torch.manual_seed(0)
    return ReViLM(small_config(family, mode, tied=tied, vision=vision))


def backward(model: ReViLM) -> Tensor:
    """Of two pictures with their neighbours, or for a model without vision of text alone."""
    if model.config.vision is None:
        alone = [Chunk(text="a dog on a beach", neighbors=["a dog"]), Chunk(text="two cats", neighbors=["cats"])]
        batch = batch_of(model.config, [[[each]] for each in alone])
    else:
        shown = [pair(1, "a dog on a beach", "a dog", "the sea"), pair(2, "two cats", "cats")]
        batch = with_pixels(batch_of(model.config, [[[each]] for each in shown]))
    loss: Tensor = model(batch).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def bytes_of(model: ReViLM) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def trained_steps(model: ReViLM, stage: Stage, steps: int = 2) -> torch.optim.Optimizer:
    """Two: at the first one only what stands after a zero has a gradient that is not 0."""
    freeze(model, stage)
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
    return optimizer


def test_names_of_retrofit() -> None:
    norm_and_products = [
        f"{part}.{kind}" for part in ("norm", "query", "key_value", "output") for kind in ("weight", "bias")
    ]
    blocks = [
        f"text_encoder.blocks.{number}.{part}.{kind}"
        for number in (0, 1)
        for part in (
            "attention_norm",
            "attention.queries_keys_values",
            "attention.output",
            "feed_forward_norm",
            "feed_forward.up",
            "feed_forward.down",
        )
        for kind in ("weight", "bias")
    ]
    due = blocks + [f"retrieval_cross_attention.{number}.{name}" for number in (2, 3) for name in norm_and_products]
    assert trainable_names(make_model("cross", vision=False), "retrofit") == due


def test_names_of_pretrain() -> None:
    dense = ["feed_forward_norm.weight", "feed_forward_norm.bias", "up.weight", "down.weight"]
    products = ["query.weight", "key_value.weight", "output.weight"]
    gated = ["norm.weight", "norm.bias", *products, "attention_gate", *dense, "feed_forward_gate"]
    resampler = ["patch_norm.weight", "patch_norm.bias", "latent_norm.weight", "latent_norm.bias", *products, *dense]
    due = {"special_tokens.table", "special_tokens.head"}
    due |= {"resampler.latents", "resampler.time", "resampler.norm.weight", "resampler.norm.bias"}
    due |= {f"resampler.layers.{number}.{name}" for number in (0, 1) for name in resampler}
    due |= {f"gated_cross_attention.{number}.{name}" for number in (1, 2, 3) for name in gated}
    for mode in MODES:
        assert set(trainable_names(make_model(mode, tied=False), "pretrain")) == due


@pytest.mark.parametrize(
    ("mode", "stage", "train_retrieval", "parts"),
    [
        ("none", "pretrain", False, SIGHT),
        ("prefix", "pretrain", False, SIGHT),
        ("cross", "pretrain", False, SIGHT),
        ("cross", "pretrain", True, SIGHT | RETRIEVAL),
        ("none", "finetune", False, SIGHT | {"language_model", "image_encoder"}),
        ("prefix", "finetune", False, SIGHT | {"language_model", "image_encoder"}),
        ("cross", "finetune", False, SIGHT | {"language_model", "image_encoder"} | RETRIEVAL),
        ("cross", "retrofit", False, RETRIEVAL),
        ("none", "language", False, {"language_model"}),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_exactly_the_names_of_the_stage(
    family: Family, mode: Mode, stage: Stage, train_retrieval: bool, parts: set[str]
) -> None:
    model = make_model(mode, vision=stage not in ("language", "retrofit"), tied=family == "gpt2", family=family)
    backward(model)  # what is there already has to go
    freeze(model, stage, train_retrieval=train_retrieval)
    model.zero_grad()
    backward(model)
    names = trainable_names(model, stage, train_retrieval=train_retrieval)
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == set(names)
    assert {name.split(".")[0] for name in names} == parts


def test_freezing_drops_the_gradients_that_frozen_parts_have() -> None:
    model = make_model("cross")
    backward(model)
    freeze(model, "pretrain")
    assert model.language_model.table.weight.grad is None
    assert next(model.retrieval_cross_attention.parameters()).grad is None


def test_a_stage_frees_what_the_one_before_froze() -> None:
    model = make_model("cross")
    freeze(model, "pretrain")
    freeze(model, "finetune")
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_step_of_retrofit_lowers_the_loss() -> None:
    model = make_model("cross", vision=False)
    freeze(model, "retrofit")
    before = backward(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)
    assert backward(model) < before - 1e-4


@pytest.mark.parametrize("stage", ["retrofit", "pretrain", "finetune"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_step_changes_the_trained_parts_and_no_byte_of_the_frozen(stage: Stage, tied: bool) -> None:
    model = make_model("cross", vision=stage != "retrofit", tied=tied)
    before = bytes_of(model)
    optimizer = trained_steps(model, stage)
    names = set(trainable_names(model, stage))
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved <= names
    assert {name.split(".")[0] for name in moved} == {name.split(".")[0] for name in names}
    assert len(optimizer.state) == len(names)


@pytest.mark.parametrize("tied", [True, False])
def test_special_tokens_move_beside_a_subword_table_that_does_not(tied: bool) -> None:
    model = make_model("cross", tied=tied)
    before = bytes_of(model)
    trained_steps(model, "pretrain")
    assert torch.equal(
        model.language_model.output_table,
        before["language_model.table.weight" if tied else "language_model.head.weight"],
    )
    rows = (model.special_tokens.table != before["special_tokens.table"]).any(1)  # type: ignore[union-attr]
    # Of <image>, <|endofchunk|>, <|pad|>, <|neighbor|> the first two are in the texts; a tied table is the output too.
    assert rows[0]
    assert rows[1] == tied
    if not tied:
        assert (model.special_tokens.head != before["special_tokens.head"]).any(1).all()  # type: ignore[union-attr]


def test_behind_frozen_gates_no_gradient_reaches_the_resampler() -> None:
    model = make_model("none")
    freeze(model, "pretrain")
    model.gated_cross_attention.requires_grad_(False)
    backward(model)
    assert all(not parameter.grad.any() for parameter in model.resampler.parameters())  # type: ignore[union-attr]


def test_at_the_first_step_the_gates_have_a_gradient_and_what_they_gate_has_none() -> None:
    model = make_model("none")
    freeze(model, "pretrain")
    backward(model)
    for layer in model.gated_cross_attention.values():
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None
            assert bool(parameter.grad.any()) == name.endswith("gate"), name


def test_frozen_parts_stay_in_evaluation_mode() -> None:
    model = make_model("cross")
    freeze(model, "pretrain")
    model.eval()
    train_mode(model)
    training = {part for part, module in model.named_children() if module.training}
    assert training == SIGHT
    assert model.training
    assert not any(module.training for module in model.language_model.modules())
    assert all(module.training for module in model.gated_cross_attention.modules())


@pytest.mark.parametrize(
    ("stage", "mode", "vision", "said"),
    [
        ("retrofit", "cross", True, "vision=None"),
        ("retrofit", "none", False, "retrieval.mode cross"),
        ("pretrain", "cross", False, "has no vision"),
        ("finetune", "none", False, "has no vision"),
        ("language", "none", True, "language trains a language model alone"),
        ("language", "cross", False, "language trains a language model alone"),
        ("finetuning", "cross", True, "'finetuning'; allowed are language, retrofit, pretrain, finetune"),
    ],
)
def test_a_model_that_is_not_the_stages_is_refused(stage: Stage, mode: Mode, vision: bool, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        freeze(make_model(mode, vision=vision), stage)


def test_the_table_counts_every_parameter_once() -> None:
    model = make_model("prefix")
    freeze(model, "pretrain")
    rows = {line.split()[0]: line.split()[1:] for line in parameter_table(model).splitlines()}
    assert rows["language_model"] == ["0", f"{sum(p.numel() for p in model.language_model.parameters()):,}"]
    assert rows["special_tokens"] == [f"{4 * 32}", "0"]
    assert "text_encoder" not in rows
    trained, frozen = (int(number.replace(",", "")) for number in rows["total"])
    assert trained + frozen == sum(parameter.numel() for parameter in model.parameters())
