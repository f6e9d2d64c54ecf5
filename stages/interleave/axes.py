"""A bound on the inner product of two vectors that takes a short product instead of a long one.

Along some orthonormal axes, the leading ones of a sample's covariance, let z be a vector's coordinates less the mean's,
and r the norm of what is left of it. Then, whatever the axes and the mean are,

    x·y  ≤  z(x)·z(y) + r(x) r(y) + x·mean + (y·mean − mean·mean),

which is one inner product of two vectors of width A + 3, so a single matrix product bounds all pairs of two blocks. The
mean is taken off first, because CLIP's vectors lie in a cone whose axis would else take most of the norm.
Shapes: D width, A axes, n rows.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.arithmetic import FLOAT32

Single = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]

WIDTH = 64  # of a bound's product: fewer axes let more pairs through, more take longer; measured best at 0.03 to 1 %


@dataclass(frozen=True)
class Axes:
    mean: Double  # (D,)
    basis: Double  # (D, A) orthonormal

    @classmethod
    def of(cls, sample: npt.NDArray[np.float16]) -> "Axes":
        """sample (n, D) → the WIDTH − 3 leading principal axes, or all D."""
        wide = sample.astype(np.float64)
        mean = wide.mean(axis=0)
        centred = wide - mean
        _, vectors = np.linalg.eigh(centred.T @ centred)
        return cls(mean, np.ascontiguousarray(vectors[:, ::-1][:, : WIDTH - 3]))

    def explained(self, sample: npt.NDArray[np.float16]) -> float:
        """Share of the sample's variance that lies along the axes: the larger, the tighter the bound."""
        centred = sample.astype(np.float64) - self.mean
        return float(((centred @ self.basis) ** 2).sum() / (centred**2).sum())

    def bound(self, rows: Single, side: Literal["left", "right"]) -> Single:
        """rows (n, D), what float32 holds of float16 → (n, A + 3). A left row's product with a right row exceeds their
        inner product, but for the float32 rounding that `rounding` bounds."""
        wide = rows.astype(np.float64)
        towards_mean = wide @ self.mean
        wide -= self.mean
        along = wide @ self.basis
        squared = np.einsum("nd,nd->n", wide, wide)
        rest = squared - np.einsum("na,na->n", along, along)
        # What float64 may have lost of the difference is added: with it the square root is never too small.
        left_over = np.sqrt(np.maximum(rest, 0) + squared * len(self.mean) * 2.0**-48)
        ones = np.ones(len(rows))
        last = [towards_mean, ones] if side == "left" else [ones, towards_mean - self.mean @ self.mean]
        return np.column_stack([along, left_over, *last]).astype(np.float32)


def rounding(width: int, norms: float) -> float:
    """By how much a float32 product of bounds may fall short of the one that was meant: rounding of their entries, and
    of the sum in any order. norms: the product of both norms."""
    return (width + 4) * FLOAT32.error * norms


def longest(rows: Single) -> float:
    """Norm of the longest row."""
    return float(np.sqrt(np.einsum("na,na->n", rows, rows, dtype=np.float64).max(initial=0)))
