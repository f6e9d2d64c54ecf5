"""The decoder-only language model: GPT-2's family and Llama's, one block with the parts of either.

Shapes: B rows, T text positions, K positions that are looked at, D width, V rows of the subword table, h heads of
width w, g heads of keys and values.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import attend, split_heads
from model.config import LanguageModelConfig
from model.key_value_cache import CacheView, LayerCache


@dataclass(frozen=True)
class TextView:
    """Where every text position stands and which positions it may look at."""

    positions: Tensor  # (B, T) int64, from 0 in every segment
    mask: Tensor | None = None  # bool, broadcast to (B, 1, T, K); None: causal

    @classmethod
    def causal(cls, rows: int, length: int, device: torch.device | str | None = None) -> "TextView":
        """Rows of one segment each; padding, if any, on the right."""
        return cls(torch.arange(length, device=device).expand(rows, length))


Rotation = tuple[Tensor, Tensor]
"""Cosines and sines (B, 1, T, w) of the angles of rotary positions."""


def norm_of(config: LanguageModelConfig) -> nn.Module:
    kind = nn.LayerNorm if config.family == "gpt2" else nn.RMSNorm
    return kind(config.width, eps=config.norm_epsilon)


class SelfAttention(nn.Module):
    """Self-attention with grouped heads; queries, keys and values from one product."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        biased = config.family == "gpt2"
        self.head_width = config.head_width
        self.widths = [config.width, config.kv_heads * config.head_width, config.kv_heads * config.head_width]
        self.queries_keys_values = nn.Linear(config.width, sum(self.widths), bias=biased)
        self.output = nn.Linear(config.width, config.width, bias=biased)

    def forward(self, x: Tensor, view: TextView, rotation: Rotation | None, cache: LayerCache | None = None) -> Tensor:
        """x (B, T, D) → (B, T, D). With a cache the keys and values of x join those of earlier calls."""
        split = self.queries_keys_values(x).split(self.widths, dim=-1)
        queries, keys, values = (split_heads(part, self.head_width) for part in split)
        if rotation is not None:
            queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        if cache is not None:
            keys, values = cache(keys, values)
        return self.output(attend(queries, keys, values, mask=view.mask, causal=view.mask is None))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """GELU (tanh form, as GPT-2) or SwiGLU, by family."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.gated = config.family == "llama"
        self.up = nn.Linear(config.width, config.inner * (2 if self.gated else 1), bias=not self.gated)
        self.down = nn.Linear(config.inner, config.width, bias=not self.gated)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(x)
        if self.gated:
            gate, up = up.chunk(2, dim=-1)
            return self.down(F.silu(gate) * up)  # type: ignore[no-any-return]
        return self.down(F.gelu(up, approximate="tanh"))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One layer, in its two halves: a RETRO layer reads its neighbours between them."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.attention_norm = norm_of(config)
        self.attention = SelfAttention(config)
        self.feed_forward_norm = norm_of(config)
        self.feed_forward = FeedForward(config)

    def attend(self, x: Tensor, view: TextView, rotation: Rotation | None, cache: LayerCache | None = None) -> Tensor:
        return x + self.attention(self.attention_norm(x), view, rotation, cache)  # type: ignore[no-any-return]

    def transform(self, x: Tensor) -> Tensor:
        return x + self.feed_forward(self.feed_forward_norm(x))  # type: ignore[no-any-return]


class LanguageModel(nn.Module):
    """Subword table, blocks, final norm, head."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocabulary, config.width)
        self.position_table = nn.Embedding(config.positions, config.width) if config.family == "gpt2" else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = norm_of(config)
        self.head = None if config.tied else nn.Linear(config.width, config.vocabulary, bias=False)
        self._initialise()

    def start(self, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Rotation | None]:
        """embeddings (B, T, D), positions (B, T) < P → what enters the first block, and the rotation of every block."""
        if self.position_table is not None:
            return embeddings + self.position_table(positions), None
        return embeddings, rotation_of(positions, self.config.head_width, self.config.rotary_base)

    def logits(self, normed: Tensor) -> Tensor:
        """normed (…, D), after the final norm → (…, V)."""
        return F.linear(normed, self.output_table)

    @property
    def output_table(self) -> Tensor:
        """(V, D)."""
        return self.table.weight if self.head is None else self.head.weight

    def forward(self, embeddings: Tensor, view: TextView, cache: CacheView | None = None) -> Tensor:
        """embeddings (B, T, D) → logits (B, T, V): the bare language model."""
        x, rotation = self.start(embeddings, view.positions)
        for number, block in enumerate(self.blocks):
            x = block.attend(x, view, rotation, cache and cache.layer(number))  # type: ignore[operator]
            x = block.transform(x)  # type: ignore[operator]
        return self.logits(self.norm(x))

    @torch.no_grad()
    def _initialise(self) -> None:
        """GPT-2's: normal of 0.02, the outputs of the residual branches by 1/√(2L) less."""
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
            elif weight.dim() == 2:
                branch = name.endswith(("attention.output.weight", "down.weight"))
                weight.normal_(std=0.02 / (2 * self.config.layers) ** 0.5 if branch else 0.02)


def rotation_of(positions: Tensor, head_width: int, base: float) -> Rotation:
    """positions (B, T) → cosines and sines (B, 1, T, w), in float32."""
    # Not base ** -x, which rounds otherwise than transformers: after 1,500 positions SmolLM2's logits differ by 1e-4.
    frequencies = 1 / base ** (torch.arange(0, head_width, 2, device=positions.device).float() / head_width)
    angles = (positions[..., None].float() * frequencies).repeat(1, 1, 2)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """x (B, h, T, w): channel i turns with channel i + w/2, as in the Llama weights of Hugging Face."""
    cosines, sines = rotation
    low, high = x.chunk(2, dim=-1)
    return (x * cosines + torch.cat((-high, low), dim=-1) * sines).to(x.dtype)
