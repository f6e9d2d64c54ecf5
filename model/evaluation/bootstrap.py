"""Figures with an interval, by drawing samples anew."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
_AT_ONCE = 1 << 22  # draws in memory

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A mean or another figure of a set, and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} … {self.high:.4g})"


def interval(sums: Floats, counts: Floats, *, seed: int) -> Figure:
    """sums, counts (n): of every sample → Σ sums ÷ Σ counts, and the middle 95 % of the same over n samples drawn with
    replacement (percentile bootstrap)."""
    (figure,) = interval_of(_ratio, np.stack([sums, counts], axis=1), seed=seed)
    return figure


def clustered(
    values: Floats, clusters: Sequence[Any] | npt.NDArray[Any], *, weights: Floats | None = None, seed: int
) -> Figure:
    """values (n), weights (n; None: all are equal), clusters (n): whose values are drawn together, as what is asked of
    one picture is → the weighted mean, and the middle 95 % of the same over as many clusters drawn with replacement."""
    _, cluster = np.unique(clusters, return_inverse=True)
    weight = np.ones(len(values)) if weights is None else weights
    sums: list[Floats] = [np.bincount(cluster, each).astype(np.float64) for each in (values * weight, weight)]
    return interval(*sums, seed=seed)


def interval_of(statistic: Callable[[Floats], Floats], columns: Floats, *, seed: int) -> list[Figure]:
    """statistic: (…, k) sums over samples → (…, m); columns (n, k) of every sample → its m figures, each with the
    middle 95 % of the same over n samples drawn with replacement. The same seed and n draw the same samples."""
    generator, n = np.random.default_rng(seed), len(columns)
    drawn = np.empty((RESAMPLES, columns.shape[1]))
    step = max(_AT_ONCE // n, 1)
    for first in range(0, RESAMPLES, step):
        chosen = generator.integers(n, size=(min(step, RESAMPLES - first), n))
        drawn[first : first + len(chosen)] = columns[chosen].sum(1)
    values = statistic(columns.sum(0))
    low, high = np.quantile(statistic(drawn), [0.025, 0.975], axis=0)
    return [Figure(*map(float, each)) for each in zip(values, low, high, strict=True)]


def _ratio(columns: Floats) -> Floats:
    return columns[..., :1] / columns[..., 1:]
