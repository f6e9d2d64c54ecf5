#!/usr/bin/env python
"""What the frame and the stages cost, as ratios to a bound or a peer in the same run.

python jobs/benchmark.py [frame] [embed]      prints a table in Markdown; all parts without a name
"""

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from pipeline.commits import Committed, StageFolder, Whole
from pipeline.executor import LocalExecutor
from pipeline.recipe import Json
from pipeline.run import Run
from pipeline.schemas import DOWNLOADED
from pipeline.stage import Counts, Input, Plan, Shard, Stage, shard_id
from pipeline.threads import set_threads
from pipeline.writer import Job, ShardWriter, Task, make_shard

if TYPE_CHECKING:
    from stages.embed.towers import Precision

SHARDS = 1000
REPETITIONS = 3


@dataclass(frozen=True)
class Trivial(Stage[None]):
    """One row in, one row out; the first of a chain where it reads nothing."""

    name: str  # type: ignore[misc]  # three of them stand in one run
    reads: str | None = None
    version = 1

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input(self.reads),) if self.reads else ()

    def settings(self) -> Mapping[str, Json]:
        return {}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(n)) for n in range(SHARDS)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        table = task.read(self.reads).table("rows") if self.reads else pa.table({"n": [int(task.id)]})
        out.table("rows", "{stem}.parquet", table)
        return Counts(table.num_rows, table.num_rows)


CHAIN = [Trivial("first"), Trivial("second", "first"), Trivial("third", "second")]


def frame() -> Iterator[tuple[str, str]]:
    """Scheduling and committing trivial shards through three chained stages, beside a bare window of tasks."""
    from pipeline import ray_executor

    ray_executor.connect(None)
    bare = _seconds(_bare_window)
    yield "bare window: three chained empty tasks", f"{1000 * bare / SHARDS:.1f} ms a shard"
    with tempfile.TemporaryDirectory(dir=".") as root:
        ours = _seconds(lambda: _run(root))
        yield "three stages, scheduled and committed", f"{1000 * ours / SHARDS:.1f} ms a shard (target ≤ 25)"
        yield "ratio to the bare window", f"{ours / bare:.2f}"
        yield "resume of the finished run", f"{_seconds(lambda: _run(root)):.2f} s (target < 3)"
        syncs = _seconds(lambda: _sync_files(Path(root)))
        yield "bound of the disk: 9 syncs a shard, two at a time", f"{1000 * syncs / SHARDS:.1f} ms a shard"


def _run(root: str) -> None:
    from pipeline.ray_executor import RayExecutor

    assert Run(root, CHAIN).execute(RayExecutor()).exit_code == 0


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
            alone, whole = _seconds(bare), _seconds(partial(make_shard, job, Shard(shard_id(0)), towers))
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


def _same(n: int) -> int:
    return n


def _bare_window() -> None:
    import ray

    step = ray.remote(_same)
    flying: list[Any] = []
    for n in range(SHARDS):
        flying.append(step.remote(step.remote(step.remote(n))))
        while len(flying) >= 16:
            _, flying = ray.wait(flying, num_returns=1)
    ray.get(flying)


def _sync_files(folder: Path) -> None:
    """What the commits of one chain ask of the disk: a file, its folder and a record, three times."""
    from concurrent.futures import ThreadPoolExecutor

    def sync(number: int) -> None:
        for n in range(9):
            with Path(folder, f"sync{number}-{n}").open("wb") as file:
                file.write(b"0")
                file.flush()
                os.fsync(file.fileno())

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(sync, range(SHARDS)))


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


PARTS = {"frame": frame, "embed": embed}


def main(argv: Sequence[str]) -> int:
    unknown = sorted(set(argv) - PARTS.keys())
    if unknown:
        print(f"{unknown[0]!r} is no part; the parts are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    for part in argv or PARTS:
        print(f"| {part} | |\n| --- | --- |")
        for what, figure in PARTS[part]():
            print(f"| {what} | {figure} |", flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
