"""`<image>`, `<|endofchunk|>`, `<|pad|>` and `<|neighbor|>`: ids V…V+3, in a trainable table of their own.

The language model's table can so stay frozen, as it was loaded. Shapes: V rows of that table, D text width.
"""

import torch
from torch import Tensor, nn

from model.config import SPECIAL_TOKENS
from model.language_model import LanguageModel


class SpecialTokens(nn.Module):
    """Rows at the input and, where the language model's head has a weight of its own, at the output. All start as
    copies of the end-of-text rows."""

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__()
        config = language_model.config
        shape = (len(SPECIAL_TOKENS), config.width)
        self.first = config.vocabulary
        self.table = nn.Parameter(torch.empty(shape))
        self.head = None if config.tied else nn.Parameter(torch.empty(shape))
        self.start_from(language_model)

    @torch.no_grad()
    def start_from(self, language_model: LanguageModel) -> None:
        end_of_text = language_model.config.end_of_text
        self.table.copy_(language_model.table.weight[end_of_text])
        if self.head is not None:
            self.head.copy_(language_model.output_table[end_of_text])

    def embed(self, tokens: Tensor, embeddings: Tensor) -> Tensor:
        """tokens (B, T) int64; embeddings (B, T, D), of which the rows of special tokens are replaced."""
        own = nn.functional.embedding((tokens - self.first).clamp(min=0), self.table)
        return torch.where((tokens >= self.first)[..., None], own, embeddings)

    def logits(self, normed: Tensor) -> Tensor:
        """normed (…, D), after the final norm → (…, 4)."""
        return nn.functional.linear(normed, self.table if self.head is None else self.head)
