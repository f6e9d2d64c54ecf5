"""What readers yield: a row as the source has it, before anything was checked, or the fault that no row can be made."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from pipeline.reasons import Reason
from pipeline.recipe import Json

MAX_CAPTION_BYTES = 100_000

TEXTS = ("url", "caption", "image_id", "path")
NUMBERS = ("width", "height", "clip_score", "nsfw", "watermark", "aesthetic")

Mark = list[int]
"""Where a reader can start again; what the numbers mean is the reader's own affair."""


class Fault(NamedTuple):
    reason: Reason
    detail: str


class Raw(NamedTuple):
    """Texts are bytes that may not be UTF-8. A picture is at a url, in a file (path, below the source's folder), or in
    the list itself (offset and size in bytes)."""

    caption: bytes | None
    url: bytes | None = None
    image_id: bytes | None = None
    path: bytes | None = None
    offset: int | None = None
    size: int | None = None
    numbers: Mapping[str, float | None] = {}


def malformed(detail: str) -> Fault:
    return Fault(Reason.MALFORMED_ROW, detail)


def raw_from_texts(values: Mapping[str, bytes]) -> Raw:
    """From a text format, where a score is text too. values: field → cell."""
    numbers = {field: number(cell) for field, cell in values.items() if field in NUMBERS}
    return Raw(values["caption"], values["url"], numbers=numbers)


def raw_from_json(values: Mapping[str, Json]) -> Raw | Fault:
    """values: field → what JSON has there."""
    texts: dict[str, bytes | None] = {}
    for field in TEXTS:
        value = values.get(field)
        if not isinstance(value, str | None):
            return malformed(f"{field} is {type(value).__name__}, not text")
        texts[field] = None if value is None else encoded(value)
    return Raw(**texts, numbers={field: number(values[field]) for field in NUMBERS if field in values})  # type: ignore[arg-type]


def encoded(text: str) -> bytes:
    """What cannot be UTF-8 (a lone surrogate, an escaped byte) becomes bytes that are not; the checks find them."""
    return text.encode("utf-8", "surrogatepass")


def number(value: Json) -> float | None:
    """None where there is no finite number."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
