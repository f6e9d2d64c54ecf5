"""A picture comes to the model as open_clip prepares it, or it is said why it does not."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from model.config import ImageEncoderConfig
from model.image_encoder import ImageEncoder
from model.training.pictures import decode
from stages.embed.torchvision_guard import make_torchvision_importable

make_torchvision_importable()

from open_clip.transform import PreprocessCfg, image_transform_v2  # noqa: E402


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)


def jpeg_of(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def prepared_by_open_clip(jpeg: bytes, image_size: int) -> Tensor:
    """(1, 3, H, W) float32, normalised."""
    prepared: Tensor = image_transform_v2(PreprocessCfg(size=image_size), is_train=False)(Image.open(io.BytesIO(jpeg)))
    return prepared[None]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(32, 32), (31, 90), (257, 64), (9, 5), (333, 334), (1, 40)])
@pytest.mark.parametrize("image_size", [32, 33])
def test_pixels_are_open_clips_own_to_the_bit(mode: str, size: tuple[int, int], image_size: int) -> None:
    jpeg = jpeg_of(noise(*size, mode))
    pixels = decode(jpeg, image_size)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (1, 3, image_size, image_size))
    encoder = ImageEncoder(ImageEncoderConfig(image_size=image_size, patch_size=image_size, width=8, layers=1, heads=1))
    normalised = prepared_by_open_clip(jpeg, image_size)
    assert torch.equal(encoder(pixels), encoder(normalised))
    assert torch.equal(
        pixels, (normalised * channels(encoder.config.std) + channels(encoder.config.mean)).mul(255).round()
    )


def channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values)[:, None, None]


@pytest.mark.parametrize("picture", [b"", b"no picture", b"\xff\xd8\xff"])
def test_what_is_no_jpeg_is_refused(picture: bytes) -> None:
    with pytest.raises(ValueError, match="^not a JPEG$"):
        decode(picture, 32)


def test_another_format_is_refused() -> None:
    buffer = io.BytesIO()
    noise(40, 30).save(buffer, "PNG")
    with pytest.raises(ValueError, match="^not a JPEG$"):
        decode(buffer.getvalue(), 32)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_jpeg_that_is_cut_off_is_refused(kept: float) -> None:
    jpeg = jpeg_of(noise(80, 60))
    with pytest.raises(ValueError, match="not a sound JPEG: .*truncated"):
        decode(jpeg[: int(kept * len(jpeg))], 32)


def promising(width: int, height: int) -> bytes:
    """A small JPEG whose header says another size."""
    jpeg = bytearray(jpeg_of(noise(16, 16)))
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(jpeg)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((9000, 9000), r"9000 × 9000 px, 32 × 32 when resized; allowed are 50,000,000"),
        ((1, 60_000), r"1 × 60000 px, 32 × 1920000 when resized; allowed are 50,000,000"),
        ((60_000, 60_000), r"not a sound JPEG: Image size \(3600000000 pixels\)"),
    ],
)
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(promising(*size), 32)
