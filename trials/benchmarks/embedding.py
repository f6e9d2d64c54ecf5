"""The embed stage beside its bare model."""

import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from pipeline.commits import Committed, StageFolder
from pipeline.executor import LocalExecutor
from pipeline.recipe import Json
from pipeline.run import Run
from pipeline.schemas import DOWNLOADED
from pipeline.stage import Counts, Shard, Stage, shard_id
from pipeline.threads import set_threads
from pipeline.writer import Job, ShardWriter, Task, make_shard
from trials.benchmarks.clock import seconds

if TYPE_CHECKING:
    from stages.embed.towers import Precision

REPETITIONS = 3


@dataclass(frozen=True)
class Photos(Stage[None]):
    """Photo-like JPEGs of short side 256 px, as the download stage leaves them."""

    pictures: int
    name, version = "download", 1

    def settings(self) -> Mapping[str, Json]:
        return {"pictures": self.pictures}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        jpegs = [_photo(seed) for seed in range(64)]
        rows = []
        with out.file("images", "{stem}.tar").open("wb") as tar:
            for n in range(self.pictures):
                width, height, jpeg = jpegs[n % len(jpegs)]
                place = {"image_offset": tar.tell(), "image_bytes": len(jpeg), "width": width, "height": height}
                caption = f"photo number {n} of a street with {n % 17} trees and a wide blue sky"
                rows.append({"key": f"b-{n:010d}", "source": "b", "caption": caption, "status": "success", **place})
                tar.write(jpeg)
        out.table("pairs", "{stem}.parquet", pa.Table.from_pylist(rows, schema=DOWNLOADED))
        return Counts(self.pictures, self.pictures)


def embed() -> Iterator[tuple[str, str]]:
    """The embed stage on a shard of JPEGs, beside both towers on tensors that are decoded and tokenised already."""
    import torch

    on_gpu = torch.cuda.is_available()
    runs: list[tuple[str, Precision, int, int]] = [("ViT-B-32", "fp32", 64, 256)]
    if on_gpu:
        runs = [("ViT-B-32", "fp32", 256, 8192), ("ViT-B-32", "bf16", 256, 8192), ("ViT-L-14", "bf16", 256, 8192)]
    for model, precision, batch, pictures in runs:
        pairs = list(_embed_rates(model, precision, batch, pictures, "cuda" if on_gpu else "cpu"))
        bare, ours, ratio = (statistics.median(column) for column in zip(*pairs, strict=True))
        what = f"{model}, {precision}, batches of {batch}, {torch.cuda.get_device_name() if on_gpu else 'CPU'}"
        yield f"{what}: bare towers", f"{bare:,.0f} pairs/s"
        yield f"{what}: the stage, from JPEGs to files", f"{ours:,.0f} pairs/s"
        yield f"{what}: ratio, median of {REPETITIONS}", f"{ratio:.2f} (target ≥ 0.9)"


def _embed_rates(
    model: str, precision: "Precision", batch: int, pictures: int, device: Literal["cpu", "cuda"]
) -> Iterator[tuple[float, float, float]]:
    """Bare rate, the stage's rate (pairs/s), and their ratio, once a repetition."""
    import torch

    from stages.embed import Embed, EmbedRecipe
    from stages.embed.towers import Towers

    cores = len(os.sched_getaffinity(0))
    recipe = EmbedRecipe(
        model=model, precision=precision, batch_size=batch, device=device, cpus=cores, decode_threads=cores
    )
    towers = Towers.load(model, None, precision, device)
    pixels = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8, pin_memory=device == "cuda")
    with tempfile.TemporaryDirectory(dir=".") as root:
        photos = Photos(pictures)
        assert Run(root, [photos]).execute(LocalExecutor()).exit_code == 0
        download = StageFolder(root, photos.name)
        tokens = towers.tokenize(_captions(download))

        def bare() -> None:
            set_threads(cores)
            for _ in range(0, pictures, batch):
                towers.encode_images(pixels)
            towers.encode_tokens(tokens, batch)

        for repetition in range(REPETITIONS + 1):
            job = Job(Embed(recipe), StageFolder(root, f"embed{repetition}"), {"download": download}, "", {})
            alone, whole = seconds(bare), seconds(partial(make_shard, job, Shard(shard_id(0)), towers))
            if repetition:  # the first one warms up
                yield pictures / alone, pictures / whole, alone / whole


def _captions(folder: StageFolder) -> list[str]:
    captions: list[str] = Committed(folder, folder.record(shard_id(0))).table("pairs")["caption"].to_pylist()
    return captions


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
