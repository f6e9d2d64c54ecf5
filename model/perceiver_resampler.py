"""Perceiver resampler: any number of patch tokens → a fixed number of latents (Flamingo fig. 5).

Shapes: N pictures or videos, F frames of the longest (a picture has 1), S patch tokens a frame, E visual width,
R latents.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import attend, split_heads
from model.config import ResamplerConfig


class ResamplerLayer(nn.Module):
    """Latents look at the patches and at themselves, then pass a feed-forward layer."""

    def __init__(self, config: ResamplerConfig, width: int) -> None:
        super().__init__()
        inner = config.inner or width
        self.head_width = config.head_width
        self.patch_norm = nn.LayerNorm(width)
        self.latent_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, latents: Tensor, patches: Tensor, mask: Tensor | None) -> Tensor:
        """latents (N, R, E), patches (N, F·S, E), mask (N, 1, 1, F·S + R) → (N, R, E)."""
        normed = self.latent_norm(latents)
        seen = torch.cat((self.patch_norm(patches), normed), dim=1)
        keys, values = (split_heads(part, self.head_width) for part in self.key_value(seen).chunk(2, dim=-1))
        latents = latents + self.output(
            attend(split_heads(self.query(normed), self.head_width), keys, values, mask=mask)
        )
        return latents + self.down(F.gelu(self.up(self.feed_forward_norm(latents))))  # type: ignore[no-any-return]


class PerceiverResampler(nn.Module):
    def __init__(self, config: ResamplerConfig, width: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(config.latents, width))
        self.time = nn.Parameter(0.02 * torch.randn(config.frames, width))
        self.layers = nn.ModuleList(ResamplerLayer(config, width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, patches: Tensor, frames: Tensor) -> Tensor:
        """patches (ΣF, S, E), the frames of all pictures; frames (N, F) int64: which of them each picture has, −1 after
        its last → (N, R, E)."""
        real = frames >= 0
        # A missing frame is hidden by the mask, but through a mask another picture's NaN would come.
        patches = patches[torch.where(real, frames, frames[:, :1])] + self.time_of(real)[:, :, None]
        mask = None
        if frames.shape[1] > 1:
            seen = real.repeat_interleave(patches.shape[2], dim=1)
            mask = F.pad(seen, (0, len(self.latents)), value=True)[:, None, None]
        patches, latents = patches.flatten(1, 2), self.latents.expand(len(frames), -1, -1)
        for layer in self.layers:
            latents = layer(latents, patches, mask)
        return self.norm(latents)  # type: ignore[no-any-return]

    def time_of(self, real: Tensor) -> Tensor:
        """real (N, F) bool: the frames that there are → the time embedding of each (N, F, E): the first rows of the
        table, or all of it stretched linearly over a video that is longer. A picture is the first frame of a video of
        one."""
        last, end = real.sum(1, keepdim=True) - 1, len(self.time) - 1
        at = torch.arange(real.shape[1], device=real.device).expand_as(real)
        row = torch.where(last > end, at * end / last.clamp(min=1), at).clamp(max=end)
        low = row.long()
        return torch.lerp(self.time[low], self.time[(low + 1).clamp(max=end)], (row - low)[..., None])
