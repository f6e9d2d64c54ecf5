"""What a model and an index see of a picture: the one its pixels or patch tokens, the other a vector.

Where the index's encoder is the model's own image encoder, its forward runs once: the vector is the encoder's own, to
the bit, and the patch tokens go on to the model. It is the same where it has the same weights to the bit (a finetuned
model has others, one for another image size other positions), and both make of a drawn picture the same pixels and, but
for rounding, the same patch tokens, which shows settings that are in no weight. Otherwise each looks with its own
encoder, at its own size.

Shapes: n pictures, S patch tokens of width E.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.evaluation.answerer import Answerer
from model.evaluation.live_index import LiveIndex
from model.image_encoder import ImageEncoder
from model.training.pictures import decode

TOLERANCE = 1e-4
"""Of patch tokens, as a share of the largest; two computations of one tower differ by less than 1e-5."""


@dataclass(frozen=True)
class Seen:
    image: Tensor  # as Chunk takes it: (1, 3, H, W) uint8 pixels, or (1, S, E) patch tokens
    key: Any  # (width,) float32 of norm 1, what the index is asked with; None without one


@dataclass(frozen=True)
class Sight:
    """To be kept: the encoders are compared when it first looks."""

    answerer: Answerer
    index: LiveIndex | None

    def see(self, jpegs: Sequence[bytes]) -> list[Seen]:
        """jpegs: as a crawl stores them. Raises ValueError where one cannot be looked at."""
        return self.look([self.pixels(jpeg) for jpeg in jpegs], jpegs)

    def pixels(self, jpeg: bytes) -> Tensor:
        """(1, 3, H, W) uint8, as the model takes them. Raises ValueError as model.training.pictures.decode does."""
        return decode(jpeg, self._encoder.config.image_size)

    def look(self, pixels: Sequence[Tensor], jpegs: Sequence[bytes]) -> list[Seen]:
        """pixels: of these very pictures, one a JPEG."""
        if not pixels or self.index is None:
            return [Seen(each, None) for each in pixels]
        if not self.shared:
            return [Seen(each, key) for each, key in zip(pixels, self.index.embed(jpegs), strict=True)]
        keys, patches = self.index.towers.encode_images_and_patches(_channels_last(torch.cat(list(pixels))))
        return [Seen(tokens[None], key) for tokens, key in zip(patches, keys, strict=True)]

    @cached_property
    def shared(self) -> bool:
        """Whether one forward serves both."""
        return self.index is not None and _same_encoder(self._encoder, self.index.towers)

    @property
    def _encoder(self) -> ImageEncoder:
        encoder = self.answerer.model.image_encoder
        assert encoder is not None, "an answerer's model sees pictures"
        return encoder


def _same_encoder(encoder: ImageEncoder, towers: Any) -> bool:
    """towers: as stages.embed opens them."""
    ours, theirs = encoder.state_dict(), towers.model.visual.state_dict()
    theirs.pop("proj", None)  # to the joint space of pictures and texts
    if ours.keys() != theirs.keys() or not all(_same(tensor, theirs[name]) for name, tensor in ours.items()):
        return False
    pixels, fitted = decode(_drawn(), encoder.config.image_size), _fitted(_drawn(), towers)
    return torch.equal(_channels_last(pixels), fitted) and _same_patches(encoder, towers, pixels)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)


@torch.inference_mode()
def _same_patches(encoder: ImageEncoder, towers: Any, pixels: Tensor) -> bool:
    due = encoder(pixels.to(encoder.class_embedding.device))
    _, found = towers.encode_images_and_patches(_channels_last(pixels))
    return bool((found - due).abs().max() <= TOLERANCE * due.abs().max())


def _fitted(jpeg: bytes, towers: Any) -> Tensor:
    with Image.open(io.BytesIO(jpeg)) as picture:
        return torch.from_numpy(np.array(towers.fitter()(picture)))[None]


def _channels_last(pixels: Tensor) -> Tensor:
    """(n, 3, H, W) → (n, H, W, 3)."""
    return pixels.permute(0, 2, 3, 1).contiguous()


def _drawn() -> bytes:
    """A JPEG of noise, of another shape than any encoder takes."""
    noise = np.random.default_rng(0).integers(256, size=(301, 256, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(noise).save(written, "JPEG")
    return written.getvalue()
