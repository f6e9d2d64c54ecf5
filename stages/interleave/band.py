"""The band: which distances of two images make a pair a candidate (Re-ViLM §4.2), and how a distance is read.

Bounds are closed. A distance is decided through the cosine, the inner product of the two stored float16 vectors as they
are: multiples of 2^-48 whose sums stay below 2^5, so float64 holds them exactly, in any order of summation.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

Metric = Literal["l2", "l2_squared", "cosine"]
Floats = npt.NDArray[np.float64]

LARGEST: dict[Metric, float] = {"l2": 2, "l2_squared": 4, "cosine": 2}
"""What the distance of two unit vectors can reach."""


@dataclass(frozen=True)
class Band:
    """metric: l2 = ‖x−y‖, l2_squared = ‖x−y‖², cosine = 1−x·y, all of unit vectors."""

    metric: Metric
    lo: float
    hi: float

    @cached_property
    def lowest_cosine(self) -> float:
        return _cosine(self.metric, self.hi)

    @cached_property
    def highest_cosine(self) -> float:
        return _cosine(self.metric, self.lo)

    def holds(self, cosines: Floats) -> npt.NDArray[np.bool_]:
        return (cosines >= self.lowest_cosine) & (cosines <= self.highest_cosine)

    def distances(self, cosines: Floats) -> Floats:
        """As the metric reads them; 0 where rounded vectors make a cosine above 1."""
        apart = np.maximum(1 - cosines, 0)
        if self.metric == "cosine":
            return apart
        squared: Floats = 2 * apart
        return squared if self.metric == "l2_squared" else np.sqrt(squared)


def _cosine(metric: Metric, distance: float) -> float:
    """The float64 nearest to the cosine of that distance, as the decimal number is written: 0.92 for l2 0.4, where
    float64 arithmetic would add rounding of its own."""
    written = Fraction(str(distance))
    if metric == "cosine":
        return float(1 - written)
    return float(1 - (written if metric == "l2_squared" else written**2) / 2)
