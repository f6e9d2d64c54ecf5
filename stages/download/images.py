"""Make of fetched bytes the JPEG that is stored: judged by its header first, then decoded, turned, shrunk, encoded.

Pillow decodes and encodes, torch shrinks, and they hand each other the pixels without copying them. Measured at 0.5 Mpx
(ms CPU): decoding 3.5, at half the size 1.8; shrinking 0.5; encoding 0.4; the perceptual hash 0.7. OpenCV decodes
faster but prints libjpeg's warnings to the process's stderr and cannot be told not to. Pillow's own resize gives the
same quality at three times torch's cost or more.
"""

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from pipeline.reasons import Reason
from stages.download.phash import phash

MAX_JPEG_SIDE_PX = 65_500  # libjpeg's own limit
# A JPEG may be sent in thousands of scans of a few bytes, each a pass over every pixel (0.7 ns a pixel). Photos have
# about ten; counting their markers in the raw bytes also counts those of thumbnails and of what follows the picture.
MAX_SCANNED_PIXELS = 5_000_000_000
_START_OF_SCAN = b"\xff\xda"

_SVG_STARTS = (b"<?xml", b"<svg", b"<!doctype svg", b"<!--")
_UNSUPPORTED_STARTS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"8BPS": "PSD",
    b"\0\0\1\0": "ICO",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
}
_UNSUPPORTED_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
}
# What Pillow's readers raise on hostile bytes, found by fuzzing them; it documents only OSError.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)
# EXIF orientation → what turns the picture upright. Source: EXIF 2.3, tag 0x0112; 1 and anything unknown: upright.
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_A_LITTLE_MORE = 1 + 1e-9
T = TypeVar("T")


@dataclass(frozen=True)
class ImageRule:
    size_px: int = 256  # of the short side; only ever shrunk to it
    jpeg_quality: int = 95
    max_pixels: int = 50_000_000  # as the header states, before anything is decoded
    quality: Literal["exact", "fast"] = "exact"  # fast: JPEGs are decoded at no more than they need


@dataclass(frozen=True)
class Stored:
    jpeg: bytes
    width: int  # px, as stored
    height: int
    original_width: int  # px, as fetched, upright
    original_height: int
    sha256: str  # of the bytes as fetched
    stored_sha256: str  # of `jpeg`
    phash: int  # of the pixels that `jpeg` decodes to; `fast`: of those that were encoded

    @classmethod
    def of(
        cls,
        jpeg: bytes,
        size: tuple[int, int],
        *,
        body: bytes,
        body_size: tuple[int, int],
        gray: NDArray[np.uint8] | None = None,
    ) -> "Stored":
        """gray: the pixels (H, W) to hash; None: those that the JPEG decodes to."""
        return cls(
            jpeg=jpeg,
            width=size[0],
            height=size[1],
            original_width=body_size[0],
            original_height=body_size[1],
            sha256=hashlib.sha256(body).hexdigest(),
            stored_sha256=hashlib.sha256(jpeg).hexdigest(),
            phash=phash(_luma(jpeg) if gray is None else gray),
        )


@dataclass(frozen=True)
class Refused:
    reason: Reason
    detail: str


def store(body: bytes, rule: ImageRule) -> Stored | Refused:
    """The stored form of one fetched picture, or why there is none; the same bytes always give the same bytes.

    Taken are JPEG (CMYK too), PNG (16 bits too), WEBP, BMP and GIF, of one frame each. The result is RGB: transparent
    pixels lie on white, 16 bits keep their high byte, EXIF orientation is applied. Shrinking is by the antialiased
    triangle filter; `fast` decodes a JPEG at a reduced size first. Call it from one thread: Pillow's warnings are
    silenced by the process's filters.
    """
    return _opened(body, lambda image: _refusal(image, body, rule) or _store(image, body, rule))


def judge(body: bytes, rule: ImageRule) -> Refused | None:
    """Why the header alone refuses a picture: its format, its pixels, its frames. Nothing is decoded."""
    return _opened(body, lambda image: _refusal(image, body, rule))


def _opened(body: bytes, use: Callable[[Image.Image], T]) -> T | Refused:
    kind = _kind(body)
    if isinstance(kind, Refused):
        return kind
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(body), formats=[kind]) as image:
                return use(image)
        except Image.DecompressionBombError as fault:  # Pillow's own, higher limit
            return Refused(Reason.TOO_MANY_PIXELS, str(fault))
        except _DECODER_ERRORS as fault:
            return Refused(Reason.CORRUPT_IMAGE, f"{kind}: {fault}")


def _kind(body: bytes) -> str | Refused:
    """Pillow's name of the format, told by the first bytes: neither names nor Content-Type can be trusted."""
    if body.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if body.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return "WEBP"
    if body.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if body.startswith(b"BM") and body[14:18] in {struct.pack("<I", size) for size in (12, 40, 52, 56, 64, 108, 124)}:
        return "BMP"
    if name := _unsupported(body):
        return Refused(Reason.UNSUPPORTED_FORMAT, name)
    return Refused(Reason.NOT_AN_IMAGE, f"begins with {body[:24]!r}")


def _unsupported(body: bytes) -> str | None:
    """The name of a picture format that is known and not taken."""
    head = body[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if head.startswith(_SVG_STARTS) and b"<svg" in head and b"<html" not in head:
        return "SVG"
    if body[4:8] == b"ftyp":
        return _UNSUPPORTED_BRANDS.get(body[8:12])
    return next((name for start, name in _UNSUPPORTED_STARTS.items() if body.startswith(start)), None)


def _refusal(image: Image.Image, body: bytes, rule: ImageRule) -> Refused | None:
    """What the header alone refuses; nothing is decoded."""
    width, height = image.size
    if width * height > rule.max_pixels:
        return Refused(Reason.TOO_MANY_PIXELS, f"{width} x {height}: more than {rule.max_pixels:,}")
    if max(_stored_size(width, height, rule.size_px)) > MAX_JPEG_SIDE_PX:
        return Refused(Reason.TOO_MANY_PIXELS, f"{width} x {height}: a stored side would pass {MAX_JPEG_SIDE_PX:,}")
    if image.format in ("JPEG", "MPO"):  # MPO: a JPEG with another behind it; only the first is looked at
        scans = body.count(_START_OF_SCAN)
        if width * height * scans > MAX_SCANNED_PIXELS:
            return Refused(Reason.TOO_MANY_PIXELS, f"{width} x {height} in {scans:,} scans")
    elif getattr(image, "is_animated", False):
        return Refused(Reason.ANIMATED, f"{image.format} of several frames")
    return None


def _store(image: Image.Image, body: bytes, rule: ImageRule) -> Stored:
    width, height = image.size
    orientation = _orientation(image)
    seen = _decode_reduced(image, rule)
    small = _shrunk(_rgb(image), seen, _stored_size(width, height, rule.size_px))
    if orientation in _UPRIGHT:
        small = small.transpose(_UPRIGHT[orientation])
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    gray = np.asarray(small.convert("L")) if rule.quality == "fast" else None
    return Stored.of(_encode(small, rule.jpeg_quality), small.size, body=body, body_size=(width, height), gray=gray)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_ERRORS:  # broken EXIF is common in pictures that are fine
        return 1
    return orientation if isinstance(orientation, int) else 1


def _stored_size(width: int, height: int, size_px: int) -> tuple[int, int]:
    short = min(width, height)
    if short <= size_px:
        return width, height
    return (width * size_px + short // 2) // short, (height * size_px + short // 2) // short


def _decode_reduced(image: Image.Image, rule: ImageRule) -> tuple[float, float]:
    """Have a JPEG decoded at an eighth, a quarter or half its size where enough is left → the size (px) of what the
    decoded pixels show: sides that do not divide are rounded up, the last pixel lying partly beyond the picture."""
    width, height = image.size
    factor = next((factor for factor in (8, 4, 2) if _may_reduce(width, height, factor, rule)), 1)
    drafted = image.draft(None, (width // factor, height // factor))
    return drafted[1][2:] if drafted else image.size


def _may_reduce(width: int, height: int, factor: int, rule: ImageRule) -> bool:
    """`exact` leaves four times the stored size to the proper filter (the stored picture loses 0.1 dB or less; at twice
    the size 0.5) and takes sides that divide; `fast` leaves what is stored (it loses 0.1 to 3 dB, the less the more is
    left: docs/results.md)."""
    if rule.quality == "fast":
        return min(width, height) >= factor * rule.size_px
    return width % factor == 0 == height % factor and min(width, height) >= 4 * factor * rule.size_px


def _rgb(image: Image.Image) -> Image.Image:
    """The decoded picture, whatever its mode. Raises one of _DECODER_ERRORS."""
    image.load()
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def _shrunk(image: Image.Image, seen: tuple[float, float], size: tuple[int, int]) -> Image.Image:
    """An RGB picture, of which the first `seen` pixels (width, height) count → one of `size` without what a file says
    beside its pixels. By the triangle filter, its support scaled by the factor of shrinking."""
    pixels = _pixels(image)
    if image.size != size:
        pixels = _triangle(pixels, seen, size)
    return Image.frombuffer("RGB", size, pixels, "raw", "RGBX" if pixels.shape[2] == 4 else "RGB", 0, 1)


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """An RGB picture as (H, W, 4), the last of no meaning: Pillow's own memory. A copy (H, W, 3) of a picture that
    Pillow holds in several blocks (beyond 16 MiB)."""
    try:
        flat: NDArray[np.uint8] = pa.array(image).values.to_numpy()
    except ValueError:
        return np.array(image)
    return flat.reshape(image.height, image.width, 4)


def _triangle(pixels: NDArray[np.uint8], seen: tuple[float, float], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, C) → (height, width, C)."""
    import torch

    width, height = size
    batch = torch.from_numpy(pixels).unsqueeze(0).permute(0, 3, 1, 2)  # so made, torch knows that channels lie last
    if seen == (pixels.shape[1], pixels.shape[0]):
        small = torch.nn.functional.interpolate(batch, size=(height, width), mode="bilinear", antialias=True)
    else:  # torch rounds the size down
        scale = (height / seen[1] * _A_LITTLE_MORE, width / seen[0] * _A_LITTLE_MORE)
        small = torch.nn.functional.interpolate(batch, scale_factor=scale, mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).numpy()


def _encode(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _luma(jpeg: bytes) -> NDArray[np.uint8]:
    """The gray values (H, W) of a JPEG: its own Y plane, colours never decoded."""
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        image.draft("L", image.size)
        return np.asarray(image)
