"""Photo-like pictures in the form that the download stage leaves."""

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline.recipe import Json
from pipeline.schemas import DOWNLOADED
from pipeline.stage import Counts, Stage
from pipeline.tars import add_member
from pipeline.writer import ShardWriter, Task


@dataclass(frozen=True)
class Photos(Stage[None]):
    """JPEGs of short side 256 px."""

    pictures: int
    name, version = "download", 1

    def settings(self) -> Mapping[str, Json]:
        return {"pictures": self.pictures}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        jpegs = [_photo(seed) for seed in range(64)]
        rows = []
        with tarfile.open(out.file("images", "{stem}.tar"), "w") as tar:
            for n in range(self.pictures):
                width, height, jpeg = jpegs[n % len(jpegs)]
                key, caption = f"b-{n:010d}", f"photo number {n} of a street with {n % 17} trees and a wide blue sky"
                row = {"key": key, "source": "b", "caption": caption, "status": "success", "width": width}
                row |= {"height": height, "image_offset": add_member(tar, f"{key}.jpg", jpeg), "image_bytes": len(jpeg)}
                add_member(tar, f"{key}.txt", caption.encode())
                add_member(tar, f"{key}.json", b"{}")
                rows.append(row)
        out.table("pairs", "{stem}.parquet", pa.Table.from_pylist(rows, schema=DOWNLOADED))
        return Counts(self.pictures, self.pictures)


def _photo(seed: int) -> tuple[int, int, bytes]:
    """Width, height (px) and JPEG of noise with a photo's spectrum."""
    from io import BytesIO

    import numpy as np
    from PIL import Image

    height, width = 256, 256 + 8 * (seed % 17)
    noise = np.fft.rfft2(np.random.default_rng(seed).standard_normal((3, height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]) + 1 / width
    waves = np.fft.irfft2(noise / frequency, s=(height, width))
    pixels = np.clip(128 + 48 * waves / waves.std(), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    written = BytesIO()
    Image.fromarray(pixels).save(written, "jpeg", quality=95)
    return width, height, written.getvalue()
