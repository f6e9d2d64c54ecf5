"""The image encoder: a CLIP vision transformer (Radford et al. 2021) with open_clip's names, so that its weights load.

Shapes: N pictures of H × W px, S patch tokens row by row from the top left, E visual width, h heads of width w.
"""

from collections import OrderedDict
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import attend
from model.config import ImageEncoderConfig, check_image_size


class QuickGELU(nn.Module):
    """The sigmoid form of GELU that OpenAI trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class SelfAttention(nn.Module):
    """Every token looks at every token. Parameters as nn.MultiheadAttention names and draws them."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * config.width, config.width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * config.width))
        self.out_proj = nn.Linear(config.width, config.width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 1 + S, E) → (N, 1 + S, E)."""
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        # The width of a head is said and not left to view, which infers no size where N is 0.
        split = projected.view(*x.shape[:2], 3, self.heads, x.shape[-1] // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)  # each (N, h, 1 + S, w)
        return self.out_proj(attend(queries, keys, values))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {
            "c_fc": nn.Linear(config.width, config.inner),
            "gelu": QuickGELU() if config.quick_gelu else nn.GELU(),
            "c_proj": nn.Linear(config.inner, config.width),
        }
        self.ln_1 = nn.LayerNorm(config.width)
        self.attn = SelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 1 + S, E) → (N, 1 + S, E)."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class ImageEncoder(nn.Module):
    """Without CLIP's pooling and projection: only the patch tokens go on, as in open_flamingo."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        width, scale = config.width, config.width**-0.5
        self.conv1 = nn.Conv2d(3, width, kernel_size=config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(1 + config.grid**2, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*(Block(config) for _ in range(config.layers)))})
        self.ln_post = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (N, 3, H, W) → patch tokens (N, S, E), after the last norm.

        uint8 pixels, 0…255, are normalised by the configuration's mean and std; of another dtype they are taken as
        normalised. Raises ValueError where H or W is not the encoder's image size.
        """
        self._check(pixels)
        if pixels.dtype == torch.uint8:
            pixels = self._normalised(pixels)
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        class_token = self.class_embedding.expand(len(patches), 1, -1)
        x = torch.cat((class_token, patches), dim=1) + self.positional_embedding
        x = self.transformer["resblocks"](self.ln_pre(x))
        return self.ln_post(x[:, 1:])  # type: ignore[no-any-return]

    def _normalised(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 → (N, 3, H, W) of the weights' dtype, computed in float32."""
        normal = pixels.float().div_(255)
        # By numbers, not by tensors of three: these would be copied to the GPU, which waits for all that it has to do.
        for channel, mean, std in zip(normal.unbind(1), self.config.mean, self.config.std, strict=True):
            channel.sub_(mean).div_(std)
        return normal.to(self.conv1.weight.dtype)

    def _check(self, pixels: Tensor) -> None:
        """A convolution would drop what is left of a patch, and take a picture without N."""
        size = self.config.image_size
        if pixels.shape[1:] != (3, size, size):
            for side in pixels.shape[-2:]:
                check_image_size(side, self.config.patch_size)
            raise ValueError(
                f"pixels are {tuple(pixels.shape)}; the encoder takes (N, 3, {size}, {size}). Load the model with "
                "another vision.encoder.image_size for another size"
            )


def resize_positions(positions: Tensor, grid: int) -> Tensor:
    """(1 + g², E) → (1 + grid², E), as open_clip does it: bicubic with antialiasing, the class token's as it was."""
    old = isqrt(len(positions) - 1)
    if old == grid:
        return positions.clone()
    image = positions[1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)  # (1, E, g, g)
    image = F.interpolate(image, size=(grid, grid), mode="bicubic", antialias=True)
    return torch.cat((positions[:1], image.flatten(2)[0].T.to(positions.dtype)))
