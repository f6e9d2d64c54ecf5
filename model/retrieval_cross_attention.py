"""Cross-attention of a RETRO layer: text looks at the encoded captions of its picture's neighbours (Re-ViLM §3.4).

Shapes: B rows, T text positions, D text width, M sets of neighbours of W tokens, E packed rows of
Q of these, h heads of width w.
"""

import torch
from torch import Tensor, nn

from model.attention import KeysValues, attend, split_heads
from model.config import LanguageModelConfig
from model.language_model import norm_of
from model.routing import Routing


class RetrievalCrossAttention(nn.Module):
    """The output starts at 0: an untrained layer returns the text exactly, so that retrofit begins at the language
    model. RETRO has no gate."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        biased = config.family == "gpt2"
        self.head_width = config.head_width
        self.norm = norm_of(config)
        self.query = nn.Linear(config.width, config.width, bias=biased)
        self.key_value = nn.Linear(config.width, 2 * config.width, bias=biased)
        self.output = nn.Linear(config.width, config.width, bias=biased)
        for weight in self.output.parameters():
            nn.init.zeros_(weight)

    def keys_values(self, encoded: Tensor, rows: Routing) -> KeysValues:
        """encoded (E, Q, D) in packed rows → keys and values (M, h, W, w): once for all text that looks at a set."""
        both = rows.scatter(self.key_value(encoded)).chunk(2, dim=-1)
        keys, values = (split_heads(part, self.head_width) for part in both)
        return keys, values

    def forward(self, text: Tensor, neighbors: KeysValues, keep: Tensor, routing: Routing) -> Tensor:
        """text (B, T, D); keep (M, W) bool, one at least in every set → (B, T, D); unchanged without neighbours."""
        queries = split_heads(routing.gather(self.query(self.norm(text))), self.head_width)
        read = self.output(routing.scatter(attend(queries, *neighbors, mask=keep[:, None, None, :])))
        return text + torch.where(routing.reads, read, 0.0)
