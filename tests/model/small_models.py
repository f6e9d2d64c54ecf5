"""Small models, samples, prompts and batches for the tests of the model.

Every weight is random and every gate open, so that whatever can reach a logit does. Pictures are patch tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model.batch import Batch, collate
from model.config import (
    GatedCrossAttentionConfig,
    ImageEncoderConfig,
    LanguageModelConfig,
    ResamplerConfig,
    RetrievalConfig,
    ReViLMConfig,
    VisionConfig,
)
from model.revilm import ReViLM
from model.sequence import Chunk, Segment, SequenceBuilder
from model.tokenizer import Tokenizer

Family = Literal["gpt2", "llama"]
Mode = Literal["none", "cross", "prefix"]

FAMILIES: tuple[Family, ...] = ("gpt2", "llama")
MODES: tuple[Mode, ...] = ("none", "cross", "prefix")
VOCABULARY = 30
BEGIN, END = 28, 29  # begin-of-text, where the tokenizer has one, and end-of-text
IMAGE, END_OF_CHUNK, PAD, NEIGHBOR = range(VOCABULARY, VOCABULARY + 4)
VISUAL_WIDTH, PATCHES = 16, 4


class Letters(Tokenizer):
    """a…z are 0…25, a space is 26, all else is 27; the last id ends a text."""

    def __init__(self, begin_of_text: int | None = None, *, size: int = VOCABULARY) -> None:
        self.begin_of_text, self.end_of_text, self.size = begin_of_text, size - 1, size

    def encode(self, text: str) -> list[int]:
        return ["abcdefghijklmnopqrstuvwxyz ".find(letter) % 28 for letter in text]

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Letters, self.begin_of_text, size=self.size), ()


def language_model_config(
    family: Family = "gpt2", *, tied: bool | None = None, vocabulary: int = VOCABULARY
) -> LanguageModelConfig:
    """GPT-2 with tied tables, or Llama with grouped heads and a head of its own; the last id ends a text."""
    return LanguageModelConfig(
        family=family,
        vocabulary=vocabulary,
        end_of_text=vocabulary - 1,
        positions=160,
        layers=3,
        width=32,
        heads=4,
        key_value_heads=2 if family == "llama" else None,
        tied=family == "gpt2" if tied is None else tied,
    )


def vision_config() -> VisionConfig:
    return VisionConfig(
        encoder=ImageEncoderConfig(image_size=16, patch_size=8, width=VISUAL_WIDTH, layers=1, heads=2),
        resampler=ResamplerConfig(layers=2, latents=4, frames=3, head_width=8),
        gated=GatedCrossAttentionConfig(head_width=8),
    )


def retrieval_config(mode: Mode, *, dropout: float = 0.0, prefix_loss: float = 0.0) -> RetrievalConfig:
    return RetrievalConfig(
        mode=mode,
        layers=(2, 3) if mode == "cross" else (),
        caption_tokens=16,
        neighbor_token_dropout=dropout,
        prefix_loss=prefix_loss,
    )


def small_config(
    family: Family = "gpt2",
    mode: Mode = "none",
    *,
    tied: bool | None = None,
    vocabulary: int = VOCABULARY,
    vision: bool = True,
    dropout: float = 0.0,
    prefix_loss: float = 0.0,
) -> ReViLMConfig:
    return ReViLMConfig(
        language_model=language_model_config(family, tied=tied, vocabulary=vocabulary),
        vision=vision_config() if vision else None,
        retrieval=retrieval_config(mode, dropout=dropout, prefix_loss=prefix_loss),
    )


def small_model(config: ReViLMConfig, seed: int = 0) -> ReViLM:
    """Random weights of which none is 0, gates of 0.5 and 0.3, in evaluation mode."""
    model = ReViLM(config)
    randomise(model, seed)
    for name, gate in model.named_parameters():
        if name.endswith("_gate"):
            nn.init.constant_(gate, 0.5 if "attention_gate" in name else 0.3)
    return model.eval()


@torch.no_grad()
def randomise(part: nn.Module, seed: int = 0) -> None:
    """Matrices that keep the size of what passes, so that no attention is nearly even; norms and biases near theirs."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in part.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        if weight.dim() > 1:
            weight.copy_(drawn / weight[0].numel() ** 0.5)
        else:
            weight.copy_(0.1 * drawn + (1.0 if name.endswith("norm.weight") else 0.0))


def picture(seed: int, frames: int = 1) -> Tensor:
    """(F, S, E) patch tokens."""
    return torch.randn(frames, PATCHES, VISUAL_WIDTH, generator=torch.Generator().manual_seed(1000 + seed))


def pair(seed: int, text: str, *neighbors: str) -> Chunk:
    return Chunk(image=picture(seed), text=text, neighbors=neighbors)


def samples() -> list[list[Chunk]]:
    """A pair; an interleaved sample with a video, a prompt and a picture without neighbours; a zero-shot prompt with
    two examples in text alone; text alone."""
    return [
        [pair(1, "a dog", "a cat", "dogs")],
        [
            pair(2, "two cats", "kittens"),
            Chunk(image=picture(3, frames=3), text="a bird flies"),
            Chunk(image=picture(4), prompt="it is", text="a hen", neighbors=["b", "cocks"]),
        ],
        [Chunk(text="a cow"), Chunk(text="a pig"), Chunk(image=picture(5), text="a sheep", neighbors=["a ram"])],
        [Chunk(text="only words", neighbors=["some words", "a few"])],
    ]


def prompts(config: ReViLMConfig) -> list[Segment]:
    """Ragged: two pictures, one without text, and text alone; without vision two of text alone."""
    build = SequenceBuilder(config, Letters()).segment
    told = ["the cat"] if config.retrieval.mode == "cross" else []
    alone = build([Chunk(prompt="hello you", neighbors=told, ends=False)])
    if config.vision is None:
        return [alone, build([Chunk(prompt="and", ends=False)])]
    shot = Chunk(image=picture(1), text="a dog", neighbors=["dogs", "a cat"], learned=False)
    return [
        build([shot, Chunk(image=picture(2), prompt="so", neighbors=["two cats"], ends=False)]),
        build([Chunk(image=picture(3), ends=False)]),
        alone,
    ]


def batch_of(config: ReViLMConfig, rows: Sequence[Sequence[Sequence[Chunk]]]) -> Batch:
    """Rows of samples of chunks."""
    builder = SequenceBuilder(config, Letters(size=config.language_model.vocabulary))
    return collate([[builder.segment(sample) for sample in row] for row in rows], config)


def with_pixels(batch: Batch) -> Batch:
    """Random ones in place of the patch tokens, so that the image encoder takes part."""
    pixels = torch.randn(int((batch.frames >= 0).sum()), 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return replace(batch, patches=None, pixels=pixels)


@torch.no_grad()
def logits_of(model: ReViLM, batch: Batch) -> Tensor:
    """(B, T, V + 4)."""
    embeddings = model.embed(batch.tokens)
    return model.logits(model.hidden(embeddings, model.view_of(batch), model.condition(batch)))


def written_out(query: Tensor, keys: Tensor, values: Tensor, *, head_width: int) -> Tensor:
    """Attention of one position, head by head: query (D), keys and values (K, D) → (D)."""
    read = []
    heads = (torch.split(each, head_width, dim=-1) for each in (query, keys, values))
    for queries, seen, taken in zip(*heads, strict=True):
        read.append(torch.softmax(seen @ queries / head_width**0.5, dim=0) @ taken)
    return torch.cat(read)


def close(found: Tensor, due: Tensor, *, within: float) -> bool:
    """within: of the largest value that is due."""
    return bool((found - due).abs().max() <= within * due.abs().max())
