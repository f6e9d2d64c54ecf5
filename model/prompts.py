"""Prompts that are read once, and any text that follows them.

What follows a prompt, be it three beams or a hundred answers to score, are further positions of the prompt's row, and a
mask tells which of them belong together. All of it so shares the keys and values of the prompt, its pictures and its
neighbours, and a beam that goes on from another one gets another row of the mask: nothing is copied.

Shapes: B prompts of T tokens at most, D text width.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from model.batch import Batch
from model.key_value_cache import CacheView, KeyValueCache
from model.language_model import TextView
from model.revilm import Conditioning, ReViLM
from model.routing import Routing


class Prompts:
    """Prompts that are read, and text that follows them."""

    def __init__(self, model: ReViLM, batch: Batch, *, width: int, reads: int = 1) -> None:
        """width: positions of a row that one read() takes; reads: for how many there is room behind the prompt. A read
        without a look at earlier ones takes their place."""
        text, tokens = model.config.language_model, batch.tokens
        self.model, self.real = model, batch.segments > 0  # (B, T) bool
        self.lengths = self.real.sum(1, keepdim=True)  # (B, 1)
        embeddings, conditioning = model.embed(tokens), model.condition(batch)
        columns = tokens.shape[1] + width * reads
        self.cache = KeyValueCache(text.layers, len(tokens), text.kv_heads, columns, text.head_width, embeddings)
        view = self._view_of_cache(0, tokens.shape[1])
        hidden = model.hidden(embeddings, model.view_of(batch), conditioning, cache=view)
        self.last = hidden.take_along_dim(self.lengths[..., None] - 1, 1)  # (B, 1, D): predicts the first new token
        follows = (len(tokens), width)
        self.conditioning = rerouted(
            conditioning,
            batch.image.gather(1, self.lengths - 1).expand(follows),
            batch.evidence_set.gather(1, self.lengths - 1).expand(follows),
        )

    def read(self, tokens: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        """tokens, positions (B, width); seen (B, width, c) bool: which of the last c positions after the prompt, these
        included, each may look at → hidden (B, width, D)."""
        mask = torch.cat((self.real[:, None].expand(-1, tokens.shape[1], -1), seen), dim=2)[:, None]
        end = mask.shape[3]
        view = self._view_of_cache(end - tokens.shape[1], end)
        return self.model.hidden(self.model.embed(tokens), TextView(positions, mask), self.conditioning, cache=view)

    def _view_of_cache(self, start: int, end: int) -> CacheView:
        columns = torch.arange(start, end, device=self.real.device).expand(len(self.real), -1)
        return CacheView(self.cache, columns, end)


def check_prompts(model: ReViLM, batch: Batch, new_tokens: Sequence[int]) -> None:
    """new_tokens: of every prompt, at most. Raises ValueError where the prompts cannot be read or continued."""
    if model.training:
        raise ValueError(
            "the model is in training mode, in which tokens of neighbours may be dropped; call model.eval()"
        )
    if batch.packed:
        raise ValueError("the batch has several samples in a row; a prompt needs a row of its own")
    positions = model.config.language_model.positions
    for row, (length, new) in enumerate(zip((batch.segments > 0).sum(1).tolist(), new_tokens, strict=True)):
        if length == 0:
            raise ValueError(f"prompt {row} has no token; allowed is one at least")
        if length + new > positions:
            raise ValueError(
                f"prompt {row} has {length} tokens and up to {new} new ones follow; the language model has {positions} "
                "positions. Take fewer shots or fewer new tokens"
            )


def rerouted(conditioning: Conditioning, image: Tensor, evidence_set: Tensor) -> Conditioning:
    """image, evidence_set (rows, positions) int64: what other text than the batch's looks at; −1 is none."""
    pictures = len(conditioning.image_routing.position)
    sets = len(conditioning.evidence_routing.position)
    return replace(
        conditioning,
        image_routing=Routing.of(image, pictures),
        evidence_routing=Routing.of(evidence_set, sets),
    )
