"""A configuration is read as it was written, and what it may not be is said."""

import json
from dataclasses import replace
from typing import Any

import pytest

from model.config import (
    GatedCrossAttentionConfig,
    ImageEncoderConfig,
    LanguageModelConfig,
    ResamplerConfig,
    RetrievalConfig,
    ReViLMConfig,
    VisionConfig,
    check_image_size,
    from_dict,
    to_dict,
)
from tests.model.small_models import FAMILIES, MODES, Family, Mode, language_model_config, small_config, vision_config


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", MODES)
def test_a_configuration_comes_back_from_json(family: Family, mode: Mode) -> None:
    config = small_config(family, mode, dropout=0.2)
    assert from_dict(ReViLMConfig, json.loads(json.dumps(to_dict(config)))) == config
    bare = ReViLMConfig(language_model=config.language_model)
    assert from_dict(ReViLMConfig, json.loads(json.dumps(to_dict(bare)))) == bare


def test_the_colours_of_what_an_encoder_was_trained_on_come_back_and_have_a_default() -> None:
    config = vision_config().encoder
    found: dict[str, Any] = json.loads(json.dumps(to_dict(config)))
    del found["mean"], found["std"]  # as in a config.json of before they were written
    assert from_dict(ImageEncoderConfig, found) == config
    other = replace(config, mean=(0.5, 0.0, -0.5), std=(1.0, 0.25, 2.0))
    assert from_dict(ImageEncoderConfig, json.loads(json.dumps(to_dict(other)))) == other
    whole = from_dict(ImageEncoderConfig, found | {"std": [1, 2, 3]})
    assert whole.std == (1.0, 2.0, 3.0)
    assert {type(value) for value in whole.std} == {float}


def test_what_is_left_out_has_its_default_and_a_whole_number_may_stand_for_a_fraction() -> None:
    found = from_dict(RetrievalConfig, {"mode": "prefix", "prefix_loss": 1})
    assert found == RetrievalConfig(mode="prefix", prefix_loss=1.0)
    assert type(found.prefix_loss) is float


def changed(section: str, **values: Any) -> dict[str, Any]:
    """A configuration with other values in a section, given as part.part."""
    whole: dict[str, Any] = json.loads(json.dumps(to_dict(small_config(mode="cross"))))
    part = whole
    for name in section.split(".") if section else ():
        part = part[name]
    part.update(values)
    return whole


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("retrieval", {"neighbours": 2}, r"config.retrieval.neighbours is not a setting; did you mean neighbors\?"),
        ("", {"qqq": 1}, r"config.qqq is not a setting \(config has language_model, vision, retrieval\)"),
        ("retrieval", {"mode": "crosss"}, "RetrievalConfig.mode is 'crosss'; allowed are none, cross, prefix"),
        ("language_model", {"family": "bert"}, "LanguageModelConfig.family is 'bert'; allowed are gpt2, llama"),
        ("language_model", {"layers": "3"}, "language_model.layers is '3'; it should be int"),
        ("language_model", {"layers": 3.0}, "language_model.layers is 3.0; it should be int"),
        ("language_model", {"layers": True}, "language_model.layers is True; it should be int"),
        ("language_model", {"tied": 1}, "language_model.tied is 1; it should be bool"),
        ("language_model", {"width": None}, "language_model.width is None; it should be int"),
        ("retrieval", {"layers": "23"}, "retrieval.layers is '23'; it should be a list of integers"),
        ("retrieval", {"layers": [2, 2.5]}, "it should be a list of integers"),
        ("", {"vision": 3}, "config.vision is 3; it should be a section"),
        ("vision.encoder", {"mean": 0.5}, "vision.encoder.mean is 0.5; it should be a list of numbers"),
        ("vision.encoder", {"std": [1.0, "1", 1.0]}, "it should be a list of numbers"),
        ("vision", {"resampler": None}, "config.vision.resampler is None; it should be a section"),
        ("", {"language_model": {"family": "gpt2"}}, "config.language_model.vocabulary is missing"),
    ],
)
def test_what_is_no_setting_or_no_value_of_it_is_named(section: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(ReViLMConfig, changed(section, **values))


@pytest.mark.parametrize("found", [3, "text", [1], None])
def test_what_is_no_section_at_all_is_refused(found: Any) -> None:
    with pytest.raises(ValueError, match="it should be a section"):
        from_dict(ReViLMConfig, found)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("language_model", {"layers": 0}, "LanguageModelConfig.layers is 0; allowed is ≥ 1"),
        ("language_model", {"feed_forward": 0}, "LanguageModelConfig.feed_forward is 0; allowed is ≥ 1"),
        ("language_model", {"key_value_heads": 0}, "LanguageModelConfig.key_value_heads is 0; allowed is ≥ 1"),
        ("language_model", {"key_value_heads": 3}, "key_value_heads is 3, which does not divide heads 4"),
        ("language_model", {"heads": 5}, "heads is 5, which does not divide width 32"),
        ("language_model", {"end_of_text": 30}, "end_of_text is 30, not an id of the table: 0…29"),
        ("language_model", {"family": "llama", "heads": 32}, "head width 1 is odd"),
        ("vision.encoder", {"image_size": 20}, "image size 20 px is no multiple of the patch of 8 px; take 16 or 24"),
        ("vision.encoder", {"feed_forward": -1}, "ImageEncoderConfig.feed_forward is -1; allowed is ≥ 1"),
        ("vision.encoder", {"heads": 3}, "heads is 3, which does not divide width 16"),
        ("vision.encoder", {"mean": [0.5, 0.5]}, r"mean is \[0.5, 0.5\]; allowed are three numbers$"),
        ("vision.encoder", {"std": [0.5, 0, 0.5]}, r"std is \[0.5, 0.0, 0.5\]; allowed are three numbers > 0"),
        ("vision.encoder", {"mean": [0.5, 0.5, float("nan")]}, "allowed are three numbers$"),
        ("vision.resampler", {"latents": 0}, "ResamplerConfig.latents is 0; allowed is ≥ 1"),
        ("vision.resampler", {"inner": 0}, "ResamplerConfig.inner is 0; allowed is ≥ 1"),
        ("vision.resampler", {"head_width": 7}, "resampler.head_width is 7, which does not divide resampler.inner 16"),
        ("vision.gated", {"inner": 0}, "GatedCrossAttentionConfig.inner is 0; allowed is ≥ 1"),
        ("vision.gated", {"head_width": 7}, "gated.head_width is 7, which does not divide gated.inner 32"),
        ("vision.gated", {"every": 4}, "gated.every is 4; the decoder has layers 1…3"),
        ("retrieval", {"layers": []}, r"retrieval.layers is \[\] in mode cross; only cross has layers"),
        ("retrieval", {"mode": "none"}, r"retrieval.layers is \[2, 3\] in mode none; only cross has layers"),
        ("retrieval", {"layers": [3, 2]}, r"layers is \[3, 2\]; allowed are distinct layers in ascending order"),
        ("retrieval", {"layers": [2, 4]}, r"layers is \[2, 4\]; the decoder has layers 1…3"),
        ("retrieval", {"layers": [0, 2]}, r"layers is \[0, 2\]; the decoder has layers 1…3"),
        ("retrieval", {"encoder_layers": 4}, "encoder_layers is 4; .* which has 3"),
        ("retrieval", {"neighbor_token_dropout": 1.0}, r"neighbor_token_dropout is 1.0; allowed is 0 ≤ p < 1"),
        ("retrieval", {"prefix_loss": 0.1}, "prefix_loss is 0.1 in mode cross; allowed is ≥ 0, in prefix only"),
        ("retrieval", {"neighbors": 11}, "11 × 16 = 176 positions; the language model has 160"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(section: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(ReViLMConfig, changed(section, **values))


def test_context_in_front_needs_the_special_tokens_of_vision() -> None:
    with pytest.raises(ValueError, match="mode is prefix without vision"):
        ReViLMConfig(language_model=language_model_config(), retrieval=RetrievalConfig(mode="prefix"))


@pytest.mark.parametrize(("size", "patch"), [(224, 32), (480, 32), (476, 14)])
def test_a_multiple_of_the_patch_is_an_image_size(size: int, patch: int) -> None:
    check_image_size(size, patch)


@pytest.mark.parametrize(("size", "patch", "allowed"), [(480, 14, "476 or 490"), (10, 14, "take 14$")])
def test_the_nearest_image_sizes_are_named(size: int, patch: int, allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed):
        check_image_size(size, patch)


def test_a_gated_layer_precedes_every_nth_layer() -> None:
    def layers(every: int) -> tuple[int, ...]:
        text = LanguageModelConfig(
            family="gpt2", vocabulary=30, end_of_text=29, positions=64, layers=7, width=64, heads=4
        )
        encoder = ImageEncoderConfig(image_size=16, patch_size=8, width=64, layers=1, heads=2)
        vision = VisionConfig(
            encoder=encoder, resampler=ResamplerConfig(), gated=GatedCrossAttentionConfig(every=every)
        )
        return ReViLMConfig(language_model=text, vision=vision).gated_layers

    assert layers(1) == (1, 2, 3, 4, 5, 6, 7)
    assert layers(3) == (3, 6)
    assert ReViLMConfig(language_model=language_model_config()).gated_layers == ()
    assert vision_config().encoder.grid == 2


def test_special_tokens_follow_the_subwords() -> None:
    config = small_config()
    assert [config.image_id, config.end_of_chunk_id, config.pad_id, config.neighbor_id] == [30, 31, 32, 33]
