"""Negative log-likelihood of the caption's tokens and its end (Re-ViLM §3.5; RA-CM3 for the retrieved captions)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """Sums and counts, so that micro-batches and ranks can be added before the mean is taken."""

    caption: Tensor  # (), nats
    caption_tokens: Tensor  # (), int64
    retrieved: Tensor  # (), nats: the tokens of neighbours (mode prefix)
    retrieved_tokens: Tensor  # (), int64
    retrieved_weight: float = 0.0  # the configuration's retrieval.prefix_loss

    def mean(self) -> Tensor:
        """Nats a token: of captions, and added to it the weighted mean of retrieved captions. Without a token 0."""
        mean = self.caption / self.caption_tokens.clamp(min=1)
        return mean + self.retrieved_weight * self.retrieved / self.retrieved_tokens.clamp(min=1)


def caption_loss(logits: Tensor, targets: Tensor, retrieved: Tensor, retrieved_weight: float = 0.0) -> Loss:
    """logits (n, vocabulary) of the positions with a target, targets (n) int64, retrieved (n) bool: a target that is
    the token of a neighbour."""
    nats = F.cross_entropy(logits.float(), targets, reduction="none")
    # Not by an index, whose size an accelerator would have to tell first.
    captions, neighbors = torch.where(retrieved, 0.0, nats), torch.where(retrieved, nats, 0.0)
    return Loss(captions.sum(), (~retrieved).sum(), neighbors.sum(), retrieved.sum(), retrieved_weight)
