"""Models by name: the paper's three sizes, two for experiments, one of SmolLM2-135M's shape.

`python -m model.presets [NAME…]` prints how many parameters each part has, beside the figures of the papers.
"""

import dataclasses
from typing import Any, Literal

from model.config import (
    GatedCrossAttentionConfig,
    ImageEncoderConfig,
    LanguageModelConfig,
    ResamplerConfig,
    RetrievalConfig,
    ReViLMConfig,
    VisionConfig,
)


def preset(
    name: str,
    *,
    mode: Literal["none", "cross", "prefix"] = "cross",
    vocabulary: int | None = None,
    end_of_text: int | None = None,
) -> ReViLMConfig:
    """The model of that name.

    vocabulary, end_of_text: of the tokenizer, for a language model that is trained from the start; with a vocabulary
    alone the end of text is its last id. Raises ValueError for a name that does not exist.
    """
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} does not exist; there are {', '.join(PRESETS)}")
    config = PRESETS[name]
    tokens: dict[str, Any] = {}
    if vocabulary is not None:
        tokens = {"vocabulary": vocabulary, "end_of_text": vocabulary - 1}
    if end_of_text is not None:
        tokens["end_of_text"] = end_of_text
    return dataclasses.replace(
        config,
        language_model=dataclasses.replace(config.language_model, **tokens),
        retrieval=config.retrieval if mode == "cross" else RetrievalConfig(mode=mode),
    )


def _gpt2(*, layers: int, width: int, heads: int, vocabulary: int, positions: int = 1024) -> LanguageModelConfig:
    return LanguageModelConfig(
        family="gpt2",
        vocabulary=vocabulary,
        end_of_text=min(vocabulary - 1, 50256),  # GPT-2's id, also where its table is padded to 50,304
        positions=positions,
        layers=layers,
        width=width,
        heads=heads,
    )


def _vit(*, layers: int, width: int, heads: int, patch_px: int, image_px: int = 224) -> ImageEncoderConfig:
    return ImageEncoderConfig(image_size=image_px, patch_size=patch_px, width=width, layers=layers, heads=heads)


VIT_B_32 = _vit(layers=12, width=768, heads=12, patch_px=32)
VIT_L_14 = _vit(layers=24, width=1024, heads=16, patch_px=14)
VIT_S_16 = _vit(layers=12, width=384, heads=6, patch_px=16)


def _model(
    language_model: LanguageModelConfig,
    tower: ImageEncoderConfig,
    *,
    gated_every: int,
    retro: tuple[int, ...] = (),
    resampler: ResamplerConfig | None = None,
) -> ReViLMConfig:
    """retro: RETRO's rule where not given, every third layer from the 6th, or from the 9th of more than 15."""
    layers = language_model.layers
    gated = GatedCrossAttentionConfig(every=gated_every)
    return ReViLMConfig(
        language_model=language_model,
        vision=VisionConfig(encoder=tower, resampler=resampler or ResamplerConfig(), gated=gated),
        retrieval=RetrievalConfig(mode="cross", layers=retro or tuple(range(6 if layers <= 15 else 9, layers + 1, 3))),
    )


_LARGE = _gpt2(layers=24, width=2048, heads=16, vocabulary=50304, positions=2048)

PRESETS = {
    # The towers of nano and tiny are ours, as wide as the text and deep enough that retrieval adds less than 16 %.
    "nano": _model(
        _gpt2(layers=3, width=128, heads=4, vocabulary=1024, positions=512),
        _vit(layers=12, width=128, heads=2, patch_px=16, image_px=64),
        gated_every=1,
        retro=(2, 3),
        resampler=ResamplerConfig(layers=1, latents=16),
    ),
    "tiny": _model(
        _gpt2(layers=4, width=256, heads=4, vocabulary=8192),
        _vit(layers=6, width=256, heads=4, patch_px=32),
        gated_every=1,
        retro=(2, 4),
        resampler=ResamplerConfig(layers=2),
    ),
    "base": _model(_gpt2(layers=12, width=768, heads=12, vocabulary=50257), VIT_B_32, gated_every=1),
    "medium": _model(_gpt2(layers=24, width=1024, heads=16, vocabulary=50257), VIT_L_14, gated_every=2),
    "large": _model(_LARGE, VIT_B_32, gated_every=4),
    "large_l14": _model(_LARGE, VIT_L_14, gated_every=4),
    "smol": _model(
        LanguageModelConfig(
            family="llama",
            vocabulary=49152,
            end_of_text=0,
            positions=8192,
            layers=30,
            width=576,
            heads=9,
            key_value_heads=3,
            feed_forward=1536,
            rotary_base=100_000.0,
        ),
        VIT_S_16,
        gated_every=3,
    ),
}
"""All of mode cross: Re-ViLM."""


if __name__ == "__main__":
    from model.parameter_counts import main

    main()
