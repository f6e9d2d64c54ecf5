"""The 64-bit perceptual hash of a picture: near-copies differ in few bits.

Definition: gray values, averaged by area to 32 x 32; orthonormal two-dimensional DCT-II; the 8 x 8 lowest frequencies,
row by row, each a bit (most significant first) that says whether it lies above the median of the 63 that are not the
mean. The mean, frequency (0, 0), says only how bright the picture is: its bit is always 0.
"""

from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

SIDE = 32
LOW = 8
# Coefficients lie within ±8,160. Rounding makes those that differ from zero by the order of summation only exactly
# zero, so that flat and symmetric pictures have one hash on every machine.
DECIMALS = 6


def phash(gray: NDArray[np.uint8]) -> int:
    """gray (H, W), at least 1 x 1 → 0…2^64 - 1."""
    small = _area_average(_area_average(gray, np.uint32).T, np.float64).T
    coefficients = np.round(_low_dct() @ small @ _low_dct().T, DECIMALS).ravel()
    bits = coefficients > np.median(coefficients[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _area_average(values: NDArray[Any], sums_as: DTypeLike) -> NDArray[np.float64]:
    """(N, M) → (N, SIDE): means over SIDE equal parts of each row, whose bounds may cut through a value.

    Running sums are taken in `sums_as`: uint32 holds those of 2^24 gray values, at a third of the time of float64.
    """
    length = values.shape[1]
    cut, beyond = _edges(length)
    sums = np.cumsum(values, axis=1, dtype=sums_as)[:, cut] - values[:, cut] * beyond
    return np.asarray((sums[:, 1:] - sums[:, :-1]) * (SIDE / length))


@lru_cache(maxsize=4096)
def _edges(length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of the parts: the value that each edge cuts, and how much of it lies beyond the edge."""
    edges = np.linspace(0, length, SIDE + 1)
    cut = np.minimum(edges.astype(np.int64), length - 1)
    return cut, 1 + cut - edges


@cache
def _low_dct() -> NDArray[np.float64]:
    """(LOW, SIDE): the LOW slowest rows of the orthonormal DCT-II."""
    frequency, position = np.mgrid[:LOW, :SIDE]
    rows: NDArray[np.float64] = np.sqrt(2 / SIDE) * np.cos(np.pi * frequency * (2 * position + 1) / (2 * SIDE))
    rows[0] /= np.sqrt(2)
    return rows
