"""The training loop on a GPU in bfloat16 autocast: what share of the card's peak it uses, on updates that are ready and
on updates that the loader makes from JPEGs. Imports torch.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

import torch

from model.config import ReViLMConfig
from model.flops import training_flops
from model.freezing import TRAINED
from model.training.loop import Pace, Stepped, train
from model.training.optimizer import adam_w
from model.training.sharding import bare, wrapped
from model.training.updates import Update, loaded
from model.training.watch import PEAK_FLOPS
from model.training.world import World
from trials.benchmarks.training_data import OnDisk, ready, trainee
from trials.benchmarks.training_loop import RATE, WEIGHT_DECAY, Kept

Line = tuple[str, str]
PACE = Pace(learning_rate=RATE, precision="bf16")
FEWEST = 8  # samples of an update that is still worth timing


@dataclass(frozen=True)
class OnGpu:
    presets: Sequence[tuple[str, int]] = (("base", 512), ("medium", 256), ("large", 256))  # and samples of an update
    compiled: Sequence[bool] = (False, True)
    first: int = 3  # updates before those that count
    updates: int = 8
    device: Literal["cuda", "cpu"] = "cuda"


def on_gpu(on_disk: OnDisk, sizes: OnGpu) -> Iterator[Line]:
    """Of an update half as many samples where they do not fit in memory, and so on."""
    if sizes.device == "cuda" and not torch.cuda.is_available():
        yield from ((f"{preset}: training on a GPU", "not run: no GPU") for preset, _ in sizes.presets)
        return
    where = torch.cuda.get_device_name() if sizes.device == "cuda" else "CPU"
    for preset, batch in sizes.presets:
        for compiled in sizes.compiled:
            what = f"{where}, {preset}, {'compiled' if compiled else 'eager'}"
            for line, figure in _fitting(on_disk, sizes, preset, batch, compiled=compiled):
                yield f"{what}, {line}", figure


def _fitting(on_disk: OnDisk, sizes: OnGpu, preset: str, batch: int, *, compiled: bool) -> list[Line]:
    while batch >= FEWEST:
        try:
            return list(_measured(on_disk, sizes, preset, batch, compiled=compiled))
        except torch.OutOfMemoryError:
            batch //= 2
        finally:
            torch.compiler.reset()
            torch.cuda.empty_cache()  # nothing without a GPU
    return [(f"{FEWEST} samples an update", "out of memory")]


def _measured(on_disk: OnDisk, sizes: OnGpu, preset: str, batch: int, *, compiled: bool) -> Iterator[Line]:
    world, count = World.here(sizes.device), sizes.first + sizes.updates
    model = wrapped(trainee(preset, on_disk.captions), world, precision="bf16", compiled=compiled)
    config, cores = bare(model).config, len(os.sched_getaffinity(0))
    synthetic = islice(cycle(ready(on_disk.captions, config, batch, "pixels", 2)), count)
    real = loaded(on_disk.updates(config, batch, "pixels"), 0, count, processes=cores)
    inputs: dict[str, Iterable[Update]] = {"synthetic": synthetic, f"JPEGs by {cores} processes": real}
    for name, updates in inputs.items():
        kept = Kept()
        train(model, adam_w(model, weight_decay=WEIGHT_DECAY), updates, PACE, world, kept)
        yield f"{name}, {batch} samples an update", _told(config, kept.stepped[sizes.first :], world.device)


def _told(config: ReViLMConfig, steps: Sequence[Stepped], device: torch.device) -> str:
    took = sum(sum(each.seconds.values()) for each in steps)
    waited = sum(each.seconds["wait"] for each in steps)
    samples = sum(each.update.samples for each in steps)
    works = [micro.work for each in steps for micro in each.update.micro_batches]
    done = sum(sum(training_flops(config, work, trained=TRAINED["pretrain"]).values()) for work in works) / took
    mfu = "MFU not known"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        mfu = next((f"MFU {done / peak:.0%} (target ≥ 40 %)" for part, peak in PEAK_FLOPS.items() if part in name), mfu)
        mfu += f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
    return f"{samples / took:,.0f} samples/s, {done / 1e12:,.2f} TFLOP/s, {mfu}, waits {waited / took:.1%}"
