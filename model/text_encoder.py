"""Bidirectional encoder of the retrieved captions, shared by all RETRO layers (Re-ViLM §3.4).

Shapes: M sets of neighbours, W tokens of the longest (its captions one after the other), E packed rows of Q tokens in
which they are read without that padding, D text width.
"""

import torch
from torch import Tensor, nn

from model.config import LanguageModelConfig
from model.language_model import Block, LanguageModel, TextView
from model.routing import Routing


class TextEncoder(nn.Module):
    """Blocks like the decoder's, which start as copies of its first; subword and position tables are the decoder's."""

    def __init__(self, config: LanguageModelConfig, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(layers))

    def forward(self, tokens: Tensor, keep: Tensor, rows: Routing, language_model: LanguageModel) -> Tensor:
        """tokens (M, W) int64; keep (M, W) bool: tokens that others of their set may look at, one at least in every
        set; rows: where each lies in the packed rows → (E, Q, D), no final norm."""
        sets, at = (torch.arange(length, device=tokens.device) for length in tokens.shape)
        number, kept = rows.gather(sets[:, None].expand_as(tokens)), rows.gather(keep) & rows.used
        # A place that holds no token looks at itself, so that no row of the mask is empty.
        own = torch.eye(rows.position.shape[1], dtype=torch.bool, device=tokens.device)
        mask = ((number[:, :, None] == number[:, None, :]) & kept[:, None, :]) | own
        view = TextView(rows.gather(at.expand_as(tokens)), mask[:, None])
        x, rotation = language_model.start(language_model.table(rows.gather(tokens)), view.positions)
        for block in self.blocks:
            x = block.transform(block.attend(x, view, rotation))  # type: ignore[operator]
        return x

    def start_from(self, language_model: LanguageModel) -> None:
        """No RETRO of these sizes is published; the decoder's first layers without their causal mask stand in."""
        for own, given in zip(self.blocks, language_model.blocks, strict=False):
            own.load_state_dict(given.state_dict())
