"""Every encoding is what it says: the good ones show the scene, the bad ones are bad in the stated way."""

import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

from demo.pictures import ENCODINGS, Picture, encode
from demo.scenes import Scene

SCENE = Scene(object="house", colour="red", count=2, place="meadow", texture="striped", view=11)
NUM_BYTES_OF_A_MEGABYTE = 1_000_000


def picture(encoding: str) -> Picture:
    return Picture(SCENE, width_px=160, height_px=120, quality=90, encoding=encoding)


def opened(encoding: str) -> Image.Image:
    return Image.open(io.BytesIO(encode(picture(encoding))))


@pytest.mark.parametrize(
    ("encoding", "image_format", "mode"),
    [
        ("jpeg", "JPEG", "RGB"),
        ("cmyk_jpeg", "JPEG", "CMYK"),
        ("turned_jpeg", "JPEG", "RGB"),
        ("webp", "WEBP", "RGB"),
        ("deep_png", "PNG", "RGB"),
        ("transparent_png", "PNG", "RGBA"),
    ],
)
def test_a_good_encoding_shows_the_scene(encoding: str, image_format: str, mode: str) -> None:
    image = opened(encoding)
    assert (image.format, image.mode) == (image_format, mode)
    upright = ImageOps.exif_transpose(image).convert("RGB")
    difference = np.abs(np.asarray(upright, np.int16) - np.asarray(picture(encoding).image(), np.int16))
    assert difference.mean() < 5


def test_a_gray_jpeg_shows_the_scene_without_its_colours() -> None:
    image = opened("gray_jpeg")
    assert image.mode == "L"
    difference = np.abs(np.asarray(image, np.int16) - np.asarray(picture("jpeg").image().convert("L"), np.int16))
    assert difference.mean() < 5


def test_a_turned_jpeg_is_stored_on_its_side() -> None:
    assert opened("turned_jpeg").size == (120, 160)


def test_a_deep_png_has_16_bits_a_channel() -> None:
    assert encode(picture("deep_png"))[24] == 16


def test_a_transparent_png_is_transparent_at_its_corners_only() -> None:
    alpha = np.asarray(opened("transparent_png"))[:, :, 3]
    assert alpha[0, 0] == 0
    assert alpha[60, 80] == 255


def test_an_animated_gif_has_two_frames() -> None:
    assert getattr(opened("animated_gif"), "n_frames", 1) == 2


def test_a_truncated_jpeg_has_a_sound_head_and_no_end() -> None:
    image = opened("truncated_jpeg")
    assert image.size == (160, 120)
    with pytest.raises(OSError, match="truncated"):
        image.load()


@pytest.mark.parametrize("encoding", ["html", "svg", "nothing", "gzip_bomb"])
def test_what_is_no_picture_does_not_open(encoding: str) -> None:
    with pytest.raises(UnidentifiedImageError):
        opened(encoding)


def test_the_pixel_bomb_is_small_to_send_and_100_megapixels_to_decode() -> None:
    body = encode(picture("pixel_bomb"))
    width_px, height_px = struct.unpack(">II", body[16:24])
    assert width_px * height_px == 100_000_000
    assert len(body) < NUM_BYTES_OF_A_MEGABYTE
    with pytest.warns(Image.DecompressionBombWarning):
        assert opened("pixel_bomb").format == "PNG"


def test_the_gzip_bomb_is_small_to_send_and_64_mebibytes_to_inflate() -> None:
    body = encode(picture("gzip_bomb"))
    assert len(body) < NUM_BYTES_OF_A_MEGABYTE
    assert len(gzip.decompress(body)) == 64 << 20


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_picture_has_the_same_bytes_every_time(encoding: str) -> None:
    first = encode(picture(encoding))
    encode.cache_clear()
    assert encode(picture(encoding)) == first
