"""The perceptual hash: its definition, and that near-copies are near."""

import io
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stages.download.images import ImageRule, Stored, store
from stages.download.phash import phash


def texture(seed: int, height: int = 256, width: int = 340) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    values = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency**1.3, s=(height, width))
    gray: NDArray[np.uint8] = np.clip(128 + 40 * values / values.std(), 0, 255).astype(np.uint8)
    return gray


def distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def by_the_book(gray: NDArray[np.uint8]) -> int:
    """The definition, term by term: each gray value is first cut into 32 x 32 equal parts, so that means are plain."""
    parts = gray.astype(float).repeat(32, axis=0).repeat(32, axis=1)
    height, width = gray.shape
    small = parts.reshape(32, height, 32, width).mean(axis=(1, 3))
    wave = [
        [math.cos(math.pi * u * (2 * x + 1) / 64) * math.sqrt((1 if u == 0 else 2) / 32) for x in range(32)]
        for u in range(8)
    ]
    low = [
        sum(small[y, x] * wave[v][y] * wave[u][x] for y in range(32) for x in range(32))
        for v in range(8)
        for u in range(8)
    ]
    median = sorted(low[1:])[31]
    return sum(1 << (63 - i) for i in range(1, 64) if round(low[i], 6) > round(median, 6))


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (50, 41), (7, 100), (33, 20)])
def test_the_hash_is_what_its_definition_says(size: tuple[int, int]) -> None:
    gray = texture(1, *size)
    assert phash(gray) == by_the_book(gray)


def test_it_can_be_recomputed_from_the_stored_file() -> None:
    out = io.BytesIO()
    Image.fromarray(texture(2, 500, 700)).convert("RGB").save(out, "JPEG")
    stored = store(out.getvalue(), ImageRule())
    assert isinstance(stored, Stored)
    with Image.open(io.BytesIO(stored.jpeg)) as image:
        image.draft("L", image.size)
        assert phash(np.asarray(image)) == stored.phash


def test_near_copies_are_near_and_other_pictures_far() -> None:
    for seed in range(20):
        original = texture(seed)
        image = Image.fromarray(original)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=40)
        copies = [
            np.asarray(Image.open(out)),
            np.asarray(image.resize((170, 128), Image.Resampling.BILINEAR)),
            np.clip(original.astype(int) * 0.8 + 20, 0, 255).astype(np.uint8),
        ]
        assert all(distance(phash(original), phash(copy)) <= 6 for copy in copies)
        assert distance(phash(original), phash(texture(seed + 100))) >= 12


@pytest.mark.parametrize("level", [0, 7, 255])
@pytest.mark.parametrize("size", [(1, 1), (100, 333), (256, 256)])
def test_a_flat_picture_has_no_bits(size: tuple[int, int], level: int) -> None:
    assert phash(np.full(size, level, np.uint8)) == 0
