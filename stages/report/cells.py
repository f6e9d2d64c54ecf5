"""How a figure is written for a person, on a terminal and on the page."""

from collections.abc import Sequence
from typing import Any

import polars as pl


def heading(column: str) -> str:
    return column.replace("_", " ")


def cell(column: str, value: Any) -> str:
    """Shares in per cent, rows with a comma at the thousands, other figures to three digits."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if column.startswith("share"):
        return f"{value:.1%}"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1 else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def rows_of(frame: pl.DataFrame) -> list[Sequence[str]]:
    return [[cell(*pair) for pair in zip(frame.columns, row, strict=True)] for row in frame.iter_rows()]


def numeric(frame: pl.DataFrame) -> list[bool]:
    """Of each column: is it written flush right?"""
    return [kind.is_numeric() for kind in frame.dtypes]


def shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
