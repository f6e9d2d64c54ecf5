"""Means with an interval."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} … {self.high:.4g})"


def interval(sums: Floats, counts: Floats, *, seed: int) -> Figure:
    """sums, counts (n): of every sample → Σ sums ÷ Σ counts, and the middle 95 % of the same over n samples drawn with
    replacement (percentile bootstrap)."""
    drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return Figure(float(sums.sum() / counts.sum()), float(low), float(high))
