"""What the model is measured with: random weights, random pictures, and captions of real lengths.

A sample is a picture and its caption; the captions of its neighbours are two others. Imports torch.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from model.batch import Batch, collate
from model.config import ReViLMConfig
from model.freezing import freeze
from model.presets import preset
from model.revilm import ReViLM
from model.sequence import Chunk, Segment, SequenceBuilder, pack
from model.tokenizer import Tokenizer

CC3M = Path(os.environ.get("REVILM_DATA", "../shared/data"), "cc3m", "Validation_GCC-1.1.0-Validation.tsv")
ROW_TOKENS = 64
TEXT_TOKENS = ROW_TOKENS - 2  # <image> and <|endofchunk|> are the others
Given = Literal["pixels", "patch tokens"]


@dataclass(frozen=True)
class Captions:
    texts: Sequence[str]
    tokenizer: Tokenizer
    told: str  # where they are from

    @classmethod
    def read(cls, path: Path = CC3M) -> "Captions":
        """Those of CC3M's validation list with pieces trained on them, or random ones where it is missing."""
        if not path.exists():
            return cls.drawn(4096)
        texts = [line.split("\t")[0] for line in path.read_text("utf-8").splitlines()]
        pieces = Tokenizer.train(texts)
        return cls(texts, pieces, f"{len(texts):,} of CC3M in {pieces.size:,} pieces")

    @classmethod
    def drawn(cls, count: int) -> "Captions":
        """Log-normal lengths whose mean is 12.4 and median 11; with the two special tokens 14.4 and 13."""
        generator = torch.Generator().manual_seed(0)
        lengths = torch.empty(count).log_normal_(2.4, 0.49, generator=generator).round().clamp(min=1).int()
        letters = Tokenizer.train([])
        return cls(["a" * length for length in lengths.tolist()], letters, f"{count:,} of drawn lengths")

    def segments(
        self, config: ReViLMConfig, count: int, given: Given, *, seed: int = 0, pictures: int = 1
    ) -> list[Segment]:
        """So many samples of so many pictures each, drawn anew for every seed. `given`: only how pictures come."""
        assert config.vision is not None
        tower, generator = config.vision.encoder, torch.Generator().manual_seed(seed)
        size = (1, 3, tower.image_size, tower.image_size) if given == "pixels" else (1, tower.grid**2, tower.width)
        shape = (count, pictures, 1 + config.retrieval.neighbors)
        # The preset's shape, the tokenizer's own end-of-text.
        text = replace(config.language_model, end_of_text=self.tokenizer.end_of_text)
        build = SequenceBuilder(replace(config, language_model=text), self.tokenizer, text_tokens=TEXT_TOKENS)
        built = []
        for sample in torch.randint(len(self.texts), shape, generator=generator).tolist():
            texts = [[self.texts[each] for each in chunk] for chunk in sample]
            chunks = [Chunk(image=torch.randn(size), text=text, neighbors=near) for text, *near in texts]
            built.append(build.segment(chunks))
        return built


def padded(segments: Sequence[Segment], config: ReViLMConfig) -> Batch:
    return collate([[segment] for segment in segments], config)


def packed(segments: Sequence[Segment], config: ReViLMConfig) -> Batch:
    rows = pack([len(segment) for segment in segments], ROW_TOKENS)
    return collate([[segments[each] for each in row] for row in rows], config)


@torch.no_grad()
def pretraining(name: str, mode: Literal["none", "cross"]) -> ReViLM:
    """A model as pretraining freezes it, with gates half open and retrieval that says something: what is multiplied
    by 0 would hide a difference."""
    torch.manual_seed(0)
    model = ReViLM(preset(name, mode=mode))
    for gated in model.gated_cross_attention.values():
        gated.attention_gate.fill_(0.5)  # type: ignore[operator]
        gated.feed_forward_gate.fill_(0.5)  # type: ignore[operator]
    for read in model.retrieval_cross_attention.values():
        read.output.weight.normal_(std=0.02)  # type: ignore[operator, union-attr]
    freeze(model, "pretrain")
    return model


def step(model: ReViLM, batch: Batch) -> float:
    """Forward and backward, without the optimizer → the loss."""
    model.zero_grad()
    loss = model(batch).mean()
    loss.backward()
    return float(loss.detach())
