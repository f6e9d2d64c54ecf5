"""What is stored is the fetched picture, upright, in RGB, shrunk properly, or there is a reason; nothing in between."""

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.reasons import Reason
from stages.download.images import ImageRule, Refused, Stored, store

RULE = ImageRule()


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """A photo-like picture: a 1/f texture with soft colours, a different corner each way."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    texture = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency**1.3, s=(height, width))
    y, x = np.mgrid[:height, :width]
    tint = np.stack([60 * x / width, 60 * y / height, 40 * (x / width) * (y / height)], axis=-1)
    return Image.fromarray(np.clip(90 + 30 * (texture / texture.std())[:, :, None] + tint, 0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(width: int, height: int, bit_depth: int, color_type: int, rows: bytes) -> bytes:
    """A PNG file with the given header and compressed rows, which need not fit it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def taken(body: bytes, rule: ImageRule = RULE) -> Stored:
    stored = store(body, rule)
    assert isinstance(stored, Stored), stored
    return stored


def refused(body: bytes, rule: ImageRule = RULE) -> Reason:
    result = store(body, rule)
    assert isinstance(result, Refused)
    return result.reason


def pixels(jpeg: bytes) -> NDArray[np.float64]:
    with Image.open(io.BytesIO(jpeg)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        return np.asarray(image, dtype=np.float64)


def psnr(found: NDArray[Any], expected: NDArray[Any]) -> float:
    assert found.shape == expected.shape
    error = np.mean((found.astype(float) - expected.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def triangle(length: int, stored: int) -> NDArray[np.float64]:
    """(stored, length): weights of the antialiased triangle filter, row by row, as the books have it."""
    scale = length / stored
    centres = (np.arange(stored)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(length)[None] + 0.5 - centres) / scale)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


# What is taken

PHOTO = photo(300, 200)
ON_WHITE = Image.new("RGB", PHOTO.size, "white")
ON_WHITE.paste(PHOTO, mask=Image.linear_gradient("L").resize(PHOTO.size))
WITH_ALPHA = PHOTO.copy()
WITH_ALPHA.putalpha(Image.linear_gradient("L").resize(PHOTO.size))
GRAY = PHOTO.convert("L")
FEW_COLOURS = PHOTO.quantize(64)
HOLED = GRAY.point(lambda value: value // 8).convert("P")
HOLED.putpalette([value for index in range(256) for value in (min(255, index * 8),) * 3])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(saved(PHOTO, "JPEG", quality=95), PHOTO, id="jpeg"),
        pytest.param(saved(PHOTO, "JPEG", quality=95, progressive=True), PHOTO, id="progressive jpeg"),
        pytest.param(saved(GRAY, "JPEG", quality=95), GRAY, id="gray jpeg"),
        pytest.param(saved(PHOTO.convert("CMYK"), "JPEG", quality=95), PHOTO, id="cmyk jpeg"),
        pytest.param(
            saved(PHOTO, "MPO", save_all=True, append_images=[PHOTO], quality=95), PHOTO, id="two jpegs in one"
        ),
        pytest.param(saved(PHOTO, "JPEG", quality=95) + b"junk" * 99, PHOTO, id="jpeg and junk"),
        pytest.param(saved(PHOTO, "PNG"), PHOTO, id="png"),
        pytest.param(saved(WITH_ALPHA, "PNG"), ON_WHITE, id="png with alpha"),
        pytest.param(saved(FEW_COLOURS, "PNG"), FEW_COLOURS, id="palette png"),
        pytest.param(saved(GRAY.convert("1"), "PNG"), GRAY.convert("1"), id="bilevel png"),
        pytest.param(saved(GRAY.convert("LA"), "PNG"), GRAY, id="gray png with alpha"),
        pytest.param(saved(PHOTO, "WEBP", quality=95), PHOTO, id="webp"),
        pytest.param(saved(WITH_ALPHA, "WEBP", lossless=True, exact=True), ON_WHITE, id="webp with alpha"),
        pytest.param(saved(PHOTO, "BMP"), PHOTO, id="bmp"),
        pytest.param(saved(FEW_COLOURS, "GIF"), FEW_COLOURS, id="gif"),
        pytest.param(
            saved(HOLED, "PNG", transparency=0),
            Image.fromarray(np.where(np.asarray(HOLED) == 0, 255, np.asarray(HOLED.convert("L"))).astype(np.uint8)),
            id="palette png with a transparent colour",
        ),
    ],
)
def test_every_kind_comes_out_as_the_same_rgb_picture(body: bytes, expected: Image.Image) -> None:
    stored = taken(body, ImageRule(size_px=400))
    assert psnr(pixels(stored.jpeg), np.asarray(expected.convert("RGB"))) > 30
    assert (stored.width, stored.height, stored.original_width, stored.original_height) == (300, 200, 300, 200)


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3)])
def test_sixteen_bits_keep_their_high_byte(color_type: int, channels: int) -> None:
    levels = np.linspace(0, 65535, 64 * 64).astype(">u2").reshape(64, 64, 1).repeat(channels, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    stored = taken(png(64, 64, 16, color_type, rows))
    assert psnr(pixels(stored.jpeg), np.broadcast_to(levels.astype(int) >> 8, (64, 64, 3))) > 40


def test_what_is_written_down_is_true() -> None:
    body = saved(photo(640, 480), "JPEG")
    stored = taken(body)
    assert (stored.sha256, stored.stored_sha256) == tuple(
        hashlib.sha256(each).hexdigest() for each in (body, stored.jpeg)
    )
    assert pixels(stored.jpeg).shape == (stored.height, stored.width, 3)
    assert 0 <= stored.phash < 2**64


def test_the_same_bytes_give_the_same_bytes_on_any_number_of_threads() -> None:
    body = saved(photo(900, 700), "JPEG")
    threads = torch.get_num_threads()
    results = []
    for count in (1, 3, 1):
        torch.set_num_threads(count)
        results.append(taken(body))
    torch.set_num_threads(threads)
    assert results[0] == results[1] == results[2]


# Size and quality


@pytest.mark.parametrize(
    ("size", "stored_size"),
    [
        ((640, 480), (341, 256)),
        ((480, 640), (256, 341)),
        ((256, 999), (256, 999)),
        ((257, 257), (256, 256)),
        ((100, 80), (100, 80)),
        ((1, 1), (1, 1)),
        ((3000, 300), (2560, 256)),
    ],
)
def test_the_short_side_is_shrunk_and_never_enlarged(size: tuple[int, int], stored_size: tuple[int, int]) -> None:
    stored = taken(saved(Image.new("RGB", size, "red"), "PNG"))
    assert (stored.width, stored.height) == stored_size
    assert (stored.original_width, stored.original_height) == size


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(820, 612), (333, 500), (1023, 769), (2064, 2048)])
def test_shrinking_is_the_antialiased_triangle_filter(size: tuple[int, int], kind: str) -> None:
    """Against the slow float64 resize; the last size is large enough for a JPEG to be decoded at half its size."""
    body = saved(photo(*size).convert("L"), kind)
    stored = taken(body, ImageRule(jpeg_quality=100))
    with Image.open(io.BytesIO(body)) as image:
        source = np.asarray(image, dtype=np.float64)
    expected = triangle(size[1], stored.height) @ source @ triangle(size[0], stored.width).T
    assert psnr(pixels(stored.jpeg)[:, :, 0], expected) > 46


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(820, 612), (333, 500), (2101, 2099)])
def test_exact_bytes_are_those_of_the_plain_way(size: tuple[int, int], mode: str) -> None:
    """Pixels copied out of Pillow, shrunk, copied back; what the file says beside its pixels is left out. The last size
    lies in several blocks of Pillow's memory, and its sides do not divide."""
    body = saved(photo(400, 300).resize(size).convert(mode), "JPEG", comment=b"a comment", dpi=(300, 300))
    stored = taken(body)
    with Image.open(io.BytesIO(body)) as image:
        batch = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
    shape = (stored.height, stored.width)
    small = torch.nn.functional.interpolate(batch, size=shape, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    assert stored.jpeg == saved(Image.fromarray(small.numpy()), "JPEG", quality=95)


@pytest.mark.parametrize("size", [(820, 612), (709, 533), (1101, 1333)])
def test_fast_is_close_to_the_triangle_filter_and_not_shifted(size: tuple[int, int]) -> None:
    """Sides that do not divide by the factor of the reduced decoding too."""
    body = saved(photo(*size).convert("L"), "JPEG", quality=95)
    stored = taken(body, ImageRule(jpeg_quality=100, quality="fast"))
    with Image.open(io.BytesIO(body)) as image:
        source = np.asarray(image, dtype=np.float64)
    expected = triangle(size[1], stored.height) @ source @ triangle(size[0], stored.width).T
    assert psnr(pixels(stored.jpeg)[:, :, 0], expected) > 43


def test_fast_changes_nothing_where_nothing_can_be_skipped() -> None:
    """A picture less than twice the stored size, and one that is no JPEG."""
    for body in (saved(photo(700, 500), "JPEG"), saved(photo(900, 700), "PNG")):
        assert taken(body, ImageRule(quality="fast")) == taken(body)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_stands_upright(orientation: int) -> None:
    """What a camera writes that was held in each of the eight ways is stored as the one upright picture."""
    upright = photo(600, 400)
    as_held = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    held = upright.transpose(as_held[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "WEBP"):
        stored = taken(saved(held, kind, exif=exif.tobytes(), quality=95))
        assert (stored.original_width, stored.original_height) == (600, 400)
        assert psnr(pixels(stored.jpeg), pixels(taken(saved(upright, "PNG")).jpeg)) > 35


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"]
)
def test_broken_exif_spoils_no_picture(exif: bytes) -> None:
    assert taken(saved(PHOTO, "JPEG", exif=exif)).width == 300


# What is refused


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.NOT_AN_IMAGE),
        (b"<!DOCTYPE html><html><body>404</body></html>", Reason.NOT_AN_IMAGE),
        (b"<?xml version='1.0'?><!DOCTYPE html><html><svg></svg></html>", Reason.NOT_AN_IMAGE),
        (b'{"error": "not found"}', Reason.NOT_AN_IMAGE),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", Reason.NOT_AN_IMAGE),
        (b"BMW is a car, and this is a sentence about it.", Reason.NOT_AN_IMAGE),
        (b"\x1f\x8b\x08" + bytes(99), Reason.NOT_AN_IMAGE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.UNSUPPORTED_FORMAT),
        (b"\xef\xbb\xbf\n<?xml version='1.0'?>\n<!-- x --><svg/>", Reason.UNSUPPORTED_FORMAT),
        (saved(PHOTO, "TIFF"), Reason.UNSUPPORTED_FORMAT),
        (saved(PHOTO, "ICO"), Reason.UNSUPPORTED_FORMAT),
        (b"8BPS\0\1" + bytes(99), Reason.UNSUPPORTED_FORMAT),
        (b"\0\0\0\x20ftypavif" + bytes(99), Reason.UNSUPPORTED_FORMAT),
        (b"\0\0\0\x18ftypheic" + bytes(99), Reason.UNSUPPORTED_FORMAT),
        (b"\0\0\0\x18ftypisom" + bytes(99), Reason.NOT_AN_IMAGE),
        (saved(FEW_COLOURS, "GIF", save_all=True, append_images=[FEW_COLOURS.rotate(9)]), Reason.ANIMATED),
        (saved(PHOTO, "WEBP", save_all=True, append_images=[PHOTO.rotate(9)]), Reason.ANIMATED),
        (saved(PHOTO, "PNG", save_all=True, append_images=[PHOTO.rotate(9)]), Reason.ANIMATED),
        (b"\xff\xd8\xff\xe0" + bytes(99), Reason.CORRUPT_IMAGE),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), Reason.CORRUPT_IMAGE),
    ],
)
def test_what_is_no_single_picture_of_a_known_kind_is_refused(body: bytes, reason: Reason) -> None:
    assert refused(body) is reason


@pytest.mark.parametrize("side", [8_000, 10_000, 15_000, 60_000])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(side: int) -> None:
    """Beyond Pillow's warning and Pillow's error too. The rows are missing: decoding would find it corrupt."""
    assert refused(png(side, side, 8, 2, b"")) is Reason.TOO_MANY_PIXELS


def test_a_jpeg_of_endless_scans_is_refused_before_decoding() -> None:
    """Each repeated scan is 20 bytes and another pass over 12 million pixels."""
    body = saved(Image.new("L", (4000, 3000), 128), "JPEG", progressive=True, quality=50)
    scan = body[body.rindex(b"\xff\xda") : -2]
    assert taken(body[:-2] + 10 * scan + body[-2:])
    assert refused(body[:-2] + 1000 * scan + body[-2:]) is Reason.TOO_MANY_PIXELS


def test_the_pixel_cap_is_exact() -> None:
    body = saved(Image.new("L", (100, 50)), "PNG")
    assert taken(body, ImageRule(max_pixels=5000))
    assert refused(body, ImageRule(max_pixels=4999)) is Reason.TOO_MANY_PIXELS


def test_a_side_that_no_jpeg_can_have_is_refused() -> None:
    assert refused(saved(Image.new("1", (70_000, 1)), "PNG")) is Reason.TOO_MANY_PIXELS


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_never_half_gray(progressive: bool) -> None:
    body = saved(photo(320, 240), "JPEG", progressive=progressive)
    cuts = [*range(3, len(body), 211), *range(len(body) - 64, len(body))]
    assert {refused(body[:cut]) for cut in cuts} == {Reason.CORRUPT_IMAGE}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_other_truncated_pictures_are_refused_too(kind: str) -> None:
    body = saved(photo(320, 240), kind)
    assert {refused(body[:cut]) for cut in range(20, len(body) - 100, len(body) // 40)} == {Reason.CORRUPT_IMAGE}


def test_decoders_keep_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    """Damage in the middle, broken EXIF and a transparent palette: nothing is printed, and no warning escapes."""
    body = bytearray(saved(photo(320, 240), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"))
    body[len(body) // 2 : len(body) // 2 + 50] = bytes(range(50))
    store(bytes(body), RULE)
    store(saved(FEW_COLOURS, "PNG", transparency=bytes(range(64))), RULE)
    store(png(10_000, 10_000, 8, 2, b""), RULE)
    assert capfd.readouterr() == ("", "")


SAMPLES = {
    "jpeg": saved(
        photo(64, 48), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    ),
    "progressive": saved(photo(64, 48), "JPEG", progressive=True),
    "cmyk": saved(photo(64, 48).convert("CMYK"), "JPEG"),
    "mpo": saved(photo(64, 48), "MPO", save_all=True, append_images=[photo(64, 48)]),
    "png": saved(photo(64, 48).quantize(16), "PNG", transparency=3),
    "gif": saved(photo(64, 48).quantize(16), "GIF"),
    "webp": saved(photo(64, 48), "WEBP"),
    "bmp": saved(photo(64, 48), "BMP"),
}


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_raises(name: str, data: st.DataObject) -> None:
    body = bytearray(SAMPLES[name])
    places = st.one_of(st.integers(0, min(200, len(body) - 1)), st.integers(0, len(body) - 1))  # headers more often
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=12)):
        body[place] = value
    cut = data.draw(st.one_of(st.just(len(body)), st.integers(0, len(body))))
    assert isinstance(store(bytes(body[:cut]), ImageRule(max_pixels=1_000_000)), Stored | Refused)


@settings(max_examples=100, deadline=None)
@given(start=st.sampled_from([b"", *(body[:20] for body in SAMPLES.values())]), rest=st.binary(max_size=300))
def test_no_bytes_raise(start: bytes, rest: bytes) -> None:
    assert isinstance(store(start + rest, ImageRule(max_pixels=1_000_000)), Stored | Refused)


# Real files


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("animated.gif", Reason.ANIMATED),
        ("cat.svg", Reason.UNSUPPORTED_FORMAT),
        ("lfs_pointer.json", Reason.NOT_AN_IMAGE),
        ("page.html", Reason.NOT_AN_IMAGE),
        ("glasses.png", (387, 256)),
        ("house.webp", (384, 256)),
        ("webp_named.png", (256, 289)),
    ],
)
def test_real_odd_files(real_data: Path, name: str, expected: Reason | tuple[int, int]) -> None:
    result = store((real_data / "bodies" / name).read_bytes(), RULE)
    assert (result.reason if isinstance(result, Refused) else (result.width, result.height)) == expected
