"""A number and how it is known. What is reckoned from several numbers is known no better than the worst of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Basis(IntEnum):
    """From the best to the worst."""

    COUNTED = 0  # in lists, records and recipes
    MEASURED = 1  # from the shards of a root, or the head of a list, and taken for the rest
    STATED = 2  # by the recipe, or by this program: an assumption


@dataclass(frozen=True)
class Figure:
    """origin: where a rate comes from; empty for what is reckoned."""

    value: float
    basis: Basis = Basis.COUNTED
    origin: str = ""

    def __mul__(self, other: "Figure | float") -> "Figure":
        return _reckoned(self, other, self.value * _value(other))

    def __add__(self, other: "Figure | float") -> "Figure":
        return _reckoned(self, other, self.value + _value(other))

    def __truediv__(self, other: "Figure | float") -> "Figure":
        return _reckoned(self, other, self.value / _value(other))

    def less(self, known: float) -> "Figure":
        """What is left of it when so much is there; never below nothing."""
        return _reckoned(self, known, max(self.value - known, 0))


def stated(value: float, origin: str) -> Figure:
    return Figure(value, Basis.STATED, origin)


def measured(value: float, origin: str) -> Figure:
    return Figure(value, Basis.MEASURED, origin)


def total(figures: "Iterable[Figure]") -> Figure:
    return sum(figures, NOTHING)


def largest(figures: "Iterable[Figure]") -> Figure:
    return max(figures, key=lambda figure: figure.value, default=NOTHING)


NOTHING = Figure(0)


def _value(number: Figure | float) -> float:
    return number.value if isinstance(number, Figure) else number


def _reckoned(one: Figure, other: Figure | float, value: float) -> Figure:
    """Nothing is counted, however it was reckoned, and adds no doubt to a sum. A bare number is counted."""
    if not value:
        return NOTHING
    doubts = [figure.basis for figure in (one, other) if isinstance(figure, Figure) and figure.value]
    return Figure(value, max(doubts, default=Basis.COUNTED))
