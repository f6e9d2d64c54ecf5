"""JPEG → pixels, exactly as open_clip prepares a picture for evaluation, without importing it.

Shapes: H and W px of the image encoder's input, equal.
"""

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = 50_000_000
"""Of a picture as its header states them, and as it is resized: `download` stores none with more."""


def decode(jpeg: bytes, image_size: int) -> Tensor:
    """→ (1, 3, H, W) uint8: the short side resized to `image_size` px (bicubic), the centre cut out, RGB.

    The picture is not decoded at a reduced size, though JPEG allows it: the pixels would differ from those that
    open_clip gives. Raises ValueError where the bytes are no JPEG, are cut off, or say that they have, or would need on
    the way to that size, more than MAX_PIXELS.
    """
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            pixels = np.array(_fitted(image, image_size))
    except UnidentifiedImageError:
        raise ValueError("not a JPEG") from None  # Pillow's own words name an address in memory
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a sound JPEG: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def _fitted(image: Image.Image, image_size: int) -> Image.Image:
    short = min(image.size)
    width, height = (image_size * side // short for side in image.size)
    if max(image.width * image.height, width * height) > MAX_PIXELS:
        raise ValueError(
            f"{image.width} × {image.height} px, {width} × {height} when resized; allowed are {MAX_PIXELS:,} in all"
        )
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    # Half pixels to the even side, as torchvision rounds them.
    left, top = round((width - image_size) / 2), round((height - image_size) / 2)
    return resized.crop((left, top, left + image_size, top + image_size)).convert("RGB")
