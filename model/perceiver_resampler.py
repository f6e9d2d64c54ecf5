"""Perceiver resampler: any number of patch tokens → a fixed number of latents (Flamingo fig. 5).

Shapes: N pictures or videos, F frames (one of each picture), S patch tokens a frame, E visual width, R latents.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

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

    def forward(self, patches: Tensor, frames: Sequence[int]) -> Tensor:
        """patches (ΣF, S, E), the frames of all pictures one after the other; frames: how many each has → (N, R, E)."""
        patches = patches + self.time_of(frames)[:, None]
        mask = None
        if len(set(frames)) > 1:
            counts = torch.tensor(frames, device=patches.device) * patches.shape[1]
            patches = pad_sequence(
                [video.flatten(0, 1) for video in torch.split(patches, list(frames))], batch_first=True
            )
            real = torch.arange(patches.shape[1], device=patches.device) < counts[:, None]
            mask = F.pad(real, (0, len(self.latents)), value=True)[:, None, None]
        else:
            length = max(frames, default=1) * patches.shape[1]
            patches = patches.reshape(len(frames), length, patches.shape[2])
        latents = self.latents.expand(len(frames), -1, -1)
        for layer in self.layers:
            latents = layer(latents, patches, mask)
        return self.norm(latents)  # type: ignore[no-any-return]

    def time_of(self, frames: Sequence[int]) -> Tensor:
        """The time embedding of every frame (ΣF, E): the first rows of the table, or all of it stretched linearly over
        a video that is longer. A picture is the first frame of a video of one."""
        table = {count: self._stretched(count) for count in set(frames)}
        return torch.cat([self.time[:0], *(table[count] for count in frames)])

    def _stretched(self, frames: int) -> Tensor:
        if frames <= len(self.time):
            return self.time[:frames]
        return F.interpolate(self.time.T[None], size=frames, mode="linear", align_corners=True)[0].T
