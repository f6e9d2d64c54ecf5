"""The embed stage beside its bare model."""

import os
import statistics
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Literal

from pipeline.commits import Committed, StageFolder
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import Shard, shard_id
from pipeline.threads import set_threads
from pipeline.writer import Job, make_shard
from trials.benchmarks.clock import seconds
from trials.benchmarks.photos import Photos

if TYPE_CHECKING:
    from stages.embed.towers import Precision

REPETITIONS = 3


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
