"""The bytes of a picture as the web has them: the usual JPEG, rarer encodings, and pretenders."""

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from demo.scenes import Scene, render

_HTML = b"<!doctype html><html><head><title>Gone</title></head><body><p>This page has moved.</p></body></html>"
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="200" height="200"><circle cx="100" cy="100" r="80"/></svg>'
_ORIENTATION = 0x0112  # the EXIF tag; 6: turn by 90° clockwise to see the picture upright


@dataclass(frozen=True)
class Picture:
    """What a url shows, before it is encoded. `encode` makes the bytes, the same ones every time."""

    scene: Scene
    width_px: int = 256
    height_px: int = 256
    quality: int = 85  # of a JPEG or WEBP
    encoding: str = "jpeg"  # of ENCODINGS

    @property
    def content_type(self) -> str:
        return ENCODINGS[self.encoding][0]

    def image(self) -> Image.Image:
        return render(self.scene, width_px=self.width_px, height_px=self.height_px)


@lru_cache(maxsize=4096)
def encode(picture: Picture) -> bytes:
    """The body that a server sends; kept, because a second pass asks again."""
    return ENCODINGS[picture.encoding][1](picture)


def _saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _jpeg(picture: Picture) -> bytes:
    return _saved(picture.image(), "JPEG", quality=picture.quality)


def _truncated_jpeg(picture: Picture) -> bytes:
    whole = _jpeg(picture)
    return whole[: len(whole) * 6 // 10]


def _gray_jpeg(picture: Picture) -> bytes:
    return _saved(picture.image().convert("L"), "JPEG", quality=picture.quality)


def _cmyk_jpeg(picture: Picture) -> bytes:
    return _saved(picture.image().convert("CMYK"), "JPEG", quality=picture.quality)


def _turned_jpeg(picture: Picture) -> bytes:
    """Stored on its side, with the EXIF orientation that puts it upright."""
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    return _saved(picture.image().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=picture.quality, exif=exif)


def _webp(picture: Picture) -> bytes:
    return _saved(picture.image(), "WEBP", quality=picture.quality, method=0)


def _transparent_png(picture: Picture) -> bytes:
    """Opaque but for its rounded corners."""
    image, alpha = picture.image(), Image.new("L", (picture.width_px, picture.height_px))
    ImageDraw.Draw(alpha).rounded_rectangle((0, 0, *alpha.size), radius=min(alpha.size) // 8, fill=255)
    image.putalpha(alpha)
    return _saved(image, "PNG", compress_level=1)


def _deep_png(picture: Picture) -> bytes:
    """16 bits a channel, which Pillow does not write."""
    pixels = np.asarray(picture.image()).astype(">u2") * 257
    rows = pixels.astype(">u2").view(np.uint8).reshape(picture.height_px, -1)
    return _png(picture.width_px, picture.height_px, depth=16, colour=2, rows=np.pad(rows, ((0, 0), (1, 0))).tobytes())


def _animated_gif(picture: Picture) -> bytes:
    image = picture.image()
    return _saved(image, "GIF", save_all=True, append_images=[ImageOps.mirror(image)], duration=200)


@cache
def _pixel_bomb() -> bytes:
    """100 megapixels of black in about 12 KB."""
    side = 10_000
    return _png(side, side, depth=1, colour=0, rows=bytes(side * (1 + side // 8)))


@cache
def _gzip_bomb() -> bytes:
    """64 MiB in about 64 KB."""
    return gzip.compress(bytes(64 << 20), mtime=0)


def _png(width_px: int, height_px: int, *, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG of `rows` as the format wants them: each with its filter byte first. `colour` 0: gray, 2: RGB."""
    header = struct.pack(">IIBBBBB", width_px, height_px, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 1 if depth == 16 else 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


ENCODINGS: dict[str, tuple[str, Callable[[Picture], bytes]]] = {
    "jpeg": ("image/jpeg", _jpeg),
    "truncated_jpeg": ("image/jpeg", _truncated_jpeg),
    "gray_jpeg": ("image/jpeg", _gray_jpeg),
    "cmyk_jpeg": ("image/jpeg", _cmyk_jpeg),
    "turned_jpeg": ("image/jpeg", _turned_jpeg),
    "webp": ("image/webp", _webp),
    "transparent_png": ("image/png", _transparent_png),
    "deep_png": ("image/png", _deep_png),
    "animated_gif": ("image/gif", _animated_gif),
    "pixel_bomb": ("image/png", lambda picture: _pixel_bomb()),
    "gzip_bomb": ("image/jpeg", lambda picture: _gzip_bomb()),
    "svg": ("image/svg+xml", lambda picture: _SVG),
    "html": ("text/html", lambda picture: _HTML),
    "nothing": ("image/jpeg", lambda picture: b""),
}
"""Content type, and what makes the bytes."""
