"""The operations of a step, against torch's own counter and against figures worked out by hand."""

from collections.abc import Collection
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.batch import Batch, collate
from model.config import (
    GatedCrossAttentionConfig,
    ImageEncoderConfig,
    ResamplerConfig,
    RetrievalConfig,
    ReViLMConfig,
    VisionConfig,
)
from model.flops import Work, training_flops
from model.presets import preset
from model.revilm import ReViLM
from model.sequence import Segment
from tests.model.small_models import FAMILIES, Family, language_model_config

PRETRAINED = ("special_tokens", "resampler", "gated_cross_attention")
RETROFITTED = ("text_encoder", "retrieval_cross_attention")
FINETUNED = ("language_model", "image_encoder", *PRETRAINED, *RETROFITTED)
VISION = VisionConfig(
    encoder=ImageEncoderConfig(image_size=32, patch_size=8, width=64, layers=2, heads=2),
    resampler=ResamplerConfig(layers=2, latents=8, inner=128),
    gated=GatedCrossAttentionConfig(every=2),
)


def model_of(family: Family, *, vision: VisionConfig | None = VISION) -> ReViLMConfig:
    """Wide enough for products to outweigh attention."""
    text = replace(language_model_config(family, vocabulary=300), layers=4, width=128, feed_forward=256)
    retrieval = RetrievalConfig(mode="cross", layers=(2, 4), neighbors=2, caption_tokens=16)
    return ReViLMConfig(language_model=text, vision=vision, retrieval=retrieval)


def sample(config: ReViLMConfig, tokens: int, evidence: int, image: torch.Tensor | None) -> Segment:
    """As many tokens with the special ones, a picture in front or none, neighbours' captions of as many tokens."""
    pictured = image is not None
    first = config.image_id if pictured else config.language_model.end_of_text
    return Segment(
        tokens=[first] + [1] * (tokens - 1),
        learned=[False] + [True] * (tokens - 1),
        retrieved=[False] * tokens,
        images=[image] if image is not None else [],
        evidence=[[2] * evidence],
    )


def counted(config: ReViLMConfig, batch: Batch, trained: Collection[str]) -> int:
    """By torch, of a step of the real model, with the plain attention: it does not see into the fused one of a CPU."""
    torch.manual_seed(0)
    model = ReViLM(config)
    for name, part in model.named_children():
        part.requires_grad_(name in trained)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(batch).mean().backward()
    return int(counter.get_total_flops())


def ours(config: ReViLMConfig, batch: Batch, trained: Collection[str]) -> int:
    return sum(training_flops(config, Work.of(batch), trained=trained).values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "trained",
    [
        PRETRAINED,
        FINETUNED,
        ("resampler", "gated_cross_attention"),
        ("gated_cross_attention",),
        ("retrieval_cross_attention",),
    ],
    ids=["pretrain", "finetune", "resampler and gated", "gated", "retrieval"],
)
def test_a_step_on_videos_and_pictures_has_the_operations_that_torch_counts(
    family: Family, trained: tuple[str, ...]
) -> None:
    """To the last one, where causal attention is counted in full, as torch does."""
    config, pixels = model_of(family), torch.zeros(2, 3, 32, 32)
    batch = collate([[sample(config, 9, 20, pixels)], [sample(config, 9, 20, pixels)]], config)
    full = replace(Work.of(batch), token_pairs=2 * 9 * 9)
    expected = counted(config, batch, trained)
    assert sum(training_flops(config, full, trained=trained).values()) == expected
    assert ours(config, batch, trained) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_before_the_first_trained_one_cost_their_forward_pass_in_retrofit(family: Family) -> None:
    config = model_of(family, vision=None)
    batch = collate([[sample(config, 9, 20, None)]] * 2, config)
    full = replace(Work.of(batch), token_pairs=2 * 9 * 9)
    expected = counted(config, batch, RETROFITTED)
    assert sum(training_flops(config, full, trained=RETROFITTED).values()) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("base", [8.82, 16.15, 5.45, 12.34, 2.32, 0.80, 0.43]),
        ("medium", [162.0, 34.6, 19.4, 43.8, 3.09, 1.42, 1.53]),
        ("large", [8.82, 16.15, 77.4, 126.2, 6.18, 5.65, 6.08]),
    ],
)
def test_a_pair_in_pretraining_costs_what_was_worked_out_by_hand(name: str, expected: list[float]) -> None:
    """10⁹ operations for 16 tokens, 28 of neighbours, gated layers everywhere, a resampler of inner width 512."""
    config = preset(name)
    assert config.vision is not None
    vision = replace(config.vision, resampler=ResamplerConfig(inner=512), gated=GatedCrossAttentionConfig(every=1))
    config = replace(config, vision=vision)
    batch = collate([[sample(config, 16, 28, torch.zeros(1, 3, 224, 224))]], config)
    flops = training_flops(config, Work.of(batch), trained=PRETRAINED)
    parts = ("image_encoder", "resampler", "language_model", "gated_cross_attention", "head", *RETROFITTED)
    assert [flops[part] / 1e9 for part in parts] == pytest.approx(expected, rel=0.01)


def test_padding_costs_nothing_and_a_packed_row_what_its_samples_cost_alone() -> None:
    config = model_of("gpt2")
    short, long = (sample(config, tokens, 2 * tokens, torch.zeros(1, 3, 32, 32)) for tokens in (4, 11))
    alone = [ours(config, collate([[each]], config), PRETRAINED) for each in (short, long)]
    assert ours(config, collate([[short], [long]], config), PRETRAINED) == sum(alone)
    assert ours(config, collate([[short, long]], config), PRETRAINED) == sum(alone)
    assert Work.of(collate([[short, long]], config)).token_pairs == (1 + 2 + 3 + 4) + 11 * 12 / 2


def test_given_patch_tokens_spare_the_image_encoder_and_nothing_else() -> None:
    config = model_of("gpt2")
    given, encoded = (
        training_flops(config, Work.of(collate([[sample(config, 9, 5, image)]], config)), trained=PRETRAINED)
        for image in (torch.zeros(1, 16, 64), torch.zeros(1, 3, 32, 32))
    )
    assert encoded["image_encoder"] > 0
    assert given == encoded | {"image_encoder": 0}


def test_a_misspelt_part_is_refused() -> None:
    config = model_of("gpt2", vision=None)
    work = Work.of(collate([[sample(config, 4, 4, None)]], config))
    with pytest.raises(ValueError, match="resampelr"):
        training_flops(config, work, trained=("resampelr",))
