"""The checks of one row: structural faults, and what the recipe's prefilter asks of the source's own columns.

The first fault in this order is the reason: the caption too large, null or blank, not UTF-8; the url or the path; the
prefilter's bounds in the order of the recipe's table. A missing score passes a bound.
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from pipeline.reasons import Reason
from stages.ingest.records import MAX_CAPTION_BYTES, Fault, Raw

MAX_URL_BYTES = 4096
NOT_IN_A_URL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.-]+(/[!-~]*)?")
NOT_IN_A_PATH = re.compile(r"[\x00-\x1f\x7f]")

REASON_OF_FIELD = {
    "clip_score": Reason.PREFILTER_CLIP_SCORE,
    "width": Reason.PREFILTER_SIZE,
    "height": Reason.PREFILTER_SIZE,
    "nsfw": Reason.PREFILTER_NSFW,
    "watermark": Reason.PREFILTER_WATERMARK,
    "aesthetic": Reason.PREFILTER_AESTHETIC,
}


def fault_of(raw: Raw, bounds: Mapping[str, float]) -> Fault | None:
    """bounds: what the recipe's prefilter gives, such as {"min_width": 64}."""
    return caption_fault(raw.caption) or _place_fault(raw) or prefilter_fault(raw.numbers, bounds)


def caption_fault(caption: bytes | None) -> Fault | None:
    if caption is None:
        return Fault(Reason.NULL_CAPTION, "null")
    if len(caption) > MAX_CAPTION_BYTES:
        return Fault(Reason.OVERSIZED_CAPTION, f"{len(caption):,} bytes, {MAX_CAPTION_BYTES:,} are allowed")
    fault = utf8_fault(caption)
    if fault or caption.decode().strip():
        return fault
    return Fault(Reason.NULL_CAPTION, f"blank, {len(caption)} bytes")


def _place_fault(raw: Raw) -> Fault | None:
    fault = utf8_fault(raw.image_id or b"")
    if fault or raw.offset is not None:
        return fault
    return path_fault(raw.path) if raw.path is not None else url_fault(raw.url)


def url_fault(url: bytes | None) -> Fault | None:
    """Blanks around a url do no harm; stripped ones are what is stored."""
    if url is None or len(url) > MAX_URL_BYTES:
        size = "null" if url is None else f"{len(url):,} bytes, {MAX_URL_BYTES:,} are allowed"
        return Fault(Reason.BAD_URL, size)
    fault = utf8_fault(url)
    if fault:
        return fault
    text = stripped(url)
    if PLAIN_URL.fullmatch(text):  # most are; what follows would find no fault, in five times the time
        return None
    if NOT_IN_A_URL.search(text):
        return Fault(Reason.BAD_URL, f"a blank or control character in {text!r}")
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        return Fault(Reason.BAD_URL, f"{error} in {text!r}")
    return None if usable else Fault(Reason.BAD_URL, f"no http(s) url with a host: {text!r}")


def stripped(url: bytes) -> str:
    return url.decode().strip(" \t\r\n")


def path_fault(name: bytes) -> Fault | None:
    """The file has to lie below the source's folder."""
    fault = utf8_fault(name)
    if fault:
        return fault
    path = PurePosixPath(name.decode())
    if path.is_absolute() or ".." in path.parts or not path.parts or NOT_IN_A_PATH.search(str(path)):
        return Fault(Reason.BAD_PATH, repr(str(path)))
    return None


def utf8_fault(text: bytes) -> Fault | None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return Fault(Reason.NOT_UTF8, f"byte {error.start}: {text[error.start : error.start + 8]!r}")
    return None


def prefilter_fault(numbers: Mapping[str, float | None], bounds: Mapping[str, float]) -> Fault | None:
    for bound, limit in bounds.items():
        side, _, field = bound.partition("_")
        value = numbers.get(field)
        if value is not None and (value < limit if side == "min" else value > limit):
            return Fault(REASON_OF_FIELD[field], f"{field} {value:g}, {bound} {limit:g}")
    return None
