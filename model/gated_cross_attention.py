"""Gated cross-attention dense layer: text looks at the latents of its latest picture (Flamingo fig. 4; Re-ViLM §3.4).

Shapes: B rows, T text positions, D text width, N pictures, R latents of width E, h heads of width w.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import KeysValues, attend, split_heads
from model.config import GatedCrossAttentionConfig
from model.routing import Routing


class GatedCrossAttention(nn.Module):
    """Both tanh gates start at 0: an untrained layer returns the text exactly."""

    def __init__(self, config: GatedCrossAttentionConfig, text_width: int, visual_width: int) -> None:
        super().__init__()
        inner = config.inner or text_width
        self.head_width = config.head_width
        self.norm = nn.LayerNorm(text_width)
        self.query = nn.Linear(text_width, inner, bias=False)
        self.key_value = nn.Linear(visual_width, 2 * inner, bias=False)
        self.output = nn.Linear(inner, text_width, bias=False)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.feed_forward_norm = nn.LayerNorm(text_width)
        self.up = nn.Linear(text_width, 4 * text_width, bias=False)
        self.down = nn.Linear(4 * text_width, text_width, bias=False)
        self.feed_forward_gate = nn.Parameter(torch.zeros(1))

    def keys_values(self, latents: Tensor) -> KeysValues:
        """latents (N, R, E) → keys and values (N, h, R, w): once for all text that looks at the picture."""
        keys, values = (split_heads(part, self.head_width) for part in self.key_value(latents).chunk(2, dim=-1))
        return keys, values

    def forward(self, text: Tensor, pictures: KeysValues, routing: Routing) -> Tensor:
        """text (B, T, D) → (B, T, D). Positions without a picture attend to nothing, but pass the dense layer."""
        queries = split_heads(routing.gather(self.query(self.norm(text))), self.head_width)
        seen = self.output(routing.scatter(attend(queries, *pictures)))
        text = text + self.attention_gate.tanh() * seen
        dense = self.down(F.gelu(self.up(self.feed_forward_norm(text))))
        return text + self.feed_forward_gate.tanh() * dense  # type: ignore[no-any-return]
