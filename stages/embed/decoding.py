"""Pictures out of a shard's tar, decoded by threads ahead of the model; Pillow lets go of the interpreter meanwhile."""

import io
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Faults = dict[int, str]  # row → why its picture cannot be read

_AHEAD = 2  # batches in the making while the model has one
_AT_ONCE = 16  # pictures that a thread takes at a time: about 20 ms


@dataclass(frozen=True)
class Stored:
    """Where a picture lies in the tar, and what it is said to be."""

    offset: int
    num_bytes: int
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Batch:
    pixels: Tensor  # (B, H, W, 3) uint8; black where a picture cannot be read, so the others' results do not change
    faults: Faults


@dataclass(frozen=True)
class Decoder:
    tar: BinaryIO
    fit: Callable[[Image.Image], Image.Image]  # any picture → RGB, H × W px
    empty_pixels: Callable[[int], Tensor]  # B → (B, H, W, 3) uint8
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def batches(self, pictures: Sequence[Stored], batch_size: int, pool: Executor) -> Iterator[Batch]:
        """In order, `batch_size` pictures each but the last; no more than three are in memory at a time."""
        ahead: deque[_Started] = deque()
        for first in range(0, len(pictures), batch_size):
            ahead.append(self._start(pictures[first : first + batch_size], first, pool))
            if len(ahead) > _AHEAD:
                yield ahead.popleft().finish()
        while ahead:
            yield ahead.popleft().finish()

    def _start(self, pictures: Sequence[Stored], first: int, pool: Executor) -> "_Started":
        pixels = self.empty_pixels(len(pictures))
        parts = []
        for i in range(0, len(pictures), _AT_ONCE):
            some = slice(i, i + _AT_ONCE)
            parts.append(pool.submit(self._decode, pictures[some], pixels.numpy()[some], first + i))
        return _Started(pixels, parts)

    def _decode(self, pictures: Sequence[Stored], pixels: Pixels, first: int) -> Faults:
        faults = {}
        for i, picture in enumerate(pictures):
            fault = self._decode_into(pixels[i], picture)
            if fault:
                pixels[i] = 0
                faults[first + i] = fault
        return faults

    def _decode_into(self, pixels: Pixels, picture: Stored) -> str | None:
        data = self._read(picture)
        try:
            pixels[:] = np.asarray(self.fit(_open(data, picture)))
        except UnidentifiedImageError:
            return "not a JPEG"  # Pillow's own words name an address in memory
        except (OSError, Image.DecompressionBombError) as error:
            return str(error)
        return None

    def _read(self, picture: Stored) -> bytes:
        with self._reading:
            self.tar.seek(picture.offset)
            return self.tar.read(picture.num_bytes)


@dataclass(frozen=True)
class _Started:
    pixels: Tensor
    parts: Sequence[Future[Faults]]

    def finish(self) -> Batch:
        return Batch(self.pixels, {row: fault for part in self.parts for row, fault in part.result().items()})


def _open(data: bytes, picture: Stored) -> Image.Image:
    """Raises OSError where it is no JPEG of that size; a header that promises more pixels is not believed."""
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    if image.size != (picture.width_px, picture.height_px):
        raise OSError(f"{image.width} × {image.height} px instead of {picture.width_px} × {picture.height_px}")
    return image
