"""A step of pretraining on a GPU in bfloat16 autocast: samples/s, the share of the card's peak, the highest memory.

Imports torch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.batch import Batch
from model.flops import Work, training_flops
from model.freezing import TRAINED
from model.loss import Loss
from model.revilm import ReViLM
from model.sequence import Segment
from trials.benchmarks.clock import seconds
from trials.benchmarks.model_samples import Captions, Given, packed, pretraining

Line = tuple[str, str]
Way = Literal["eager", "compiled", "layers computed again"]
Device = Literal["cuda", "cpu"]

RUNS: Mapping[Given, Sequence[Way]] = {
    "pixels": ("eager", "compiled", "layers computed again"),
    "patch tokens": ("eager",),
}
PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "L40S": 362e12}
"""FLOP/s of dense bfloat16 products, by the makers' data sheets."""
FEWEST = 8  # pictures of a step that is still worth timing
STEPS = 5


@dataclass(frozen=True)
class Rate:
    samples: int  # of a step
    step_s: float
    memory: str

    def told(self, flops: int, peak: float | None) -> str:
        """flops: of the model for a sample."""
        done = self.samples / self.step_s * flops
        mfu = f"{done / peak:.0%} of the card's peak" if peak else "the card's peak is not known"
        return f"{self.samples / self.step_s:,.0f} samples/s, {done / 1e12:,.2f} TFLOP/s, {mfu}, {self.memory}"


def on_gpu(
    sizes: Sequence[tuple[str, int]],
    captions: Captions,
    device: Device = "cuda",
    runs: Mapping[Given, Sequence[Way]] = RUNS,
) -> Iterator[Line]:
    """sizes: presets, and the pictures of a step: half as many where they do not fit in memory, and so on."""
    if device == "cuda" and not torch.cuda.is_available():
        yield from ((f"{preset}: a step on a GPU", "not run: no GPU") for preset, _ in sizes)
        return
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    peak = next((peak for name, peak in PEAKS.items() if name in where), None)
    for preset, pictures in sizes:
        model = pretraining(preset, "cross").to(device)
        for given, ways in runs.items():
            segments = captions.segments(model.config, pictures, given)
            flops = _flops(model, segments)
            counted = _counted(model, segments[:FEWEST], device) / _flops(model, segments[:FEWEST])
            what = f"{where}, {preset}, {given} given"
            yield f"{what}: model's operations", f"{flops / pictures / 1e9:,.1f} GFLOP a sample"
            yield f"{what}: by torch's counter, with padding and masked scores", f"{counted:.3f} of them"
            for way in ways:
                rate = _rate(model, segments, way, device)
                told = rate.told(flops // pictures, peak) if rate else f"out of memory with {FEWEST}"
                yield f"{what}: {way}, {rate.samples if rate else FEWEST} pictures a step", told


def _rate(model: ReViLM, segments: Sequence[Segment], way: Way, device: Device) -> Rate | None:
    """None: not even the fewest pictures fit in memory."""
    while len(segments) >= FEWEST:
        try:
            return _timed(model, segments, way, device)
        except torch.OutOfMemoryError:
            segments = segments[: len(segments) // 2]
        finally:
            model.zero_grad()
            torch.compiler.reset()
            torch.cuda.empty_cache()  # nothing without a GPU
    return None


def _timed(model: ReViLM, segments: Sequence[Segment], way: Way, device: Device) -> Rate:
    batch = packed(segments, model.config).to(device)
    forward: Forward = partial(model, recompute="layers") if way == "layers computed again" else model
    if way == "compiled":
        forward = torch.compile(model)
    _step(model, forward, batch, device)  # compiles and warms up
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    took = [seconds(partial(_step, model, forward, batch, device)) for _ in range(STEPS)]
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device == "cuda" else "memory not measured"
    return Rate(len(segments), median(took), memory)


Forward = Callable[[Batch], Loss]


def _step(model: ReViLM, forward: Forward, batch: Batch, device: Device) -> None:
    model.zero_grad()
    with torch.autocast(device, torch.bfloat16):
        loss = forward(batch).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    if device == "cuda":
        torch.cuda.synchronize()


def _counted(model: ReViLM, segments: Sequence[Segment], device: Device) -> int:
    """Operations of a step as torch counts them."""
    counter = FlopCounterMode(display=False)
    with counter:
        _step(model, model, packed(segments, model.config).to(device), device)
    return counter.get_total_flops()


def _flops(model: ReViLM, segments: Sequence[Segment]) -> int:
    """Operations that the model needs for a step."""
    work = Work.of(packed(segments, model.config))
    return sum(training_flops(model.config, work, trained=TRAINED["pretrain"]).values())
