"""The loader alone: samples a second of one core, from cached patch tokens and from JPEGs.

CPU seconds count, so what else runs on the machine matters little. Imports torch.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from model.config import ReViLMConfig
from model.presets import preset
from model.training.pictures import decode
from model.training.updates import Updates, loaded
from stages.filter import CorpusReader
from trials.benchmarks.race import in_turns, one_thread, ratios, spread
from trials.benchmarks.training_data import OnDisk

Line = tuple[str, str]
PRESET = "base"


@dataclass(frozen=True)
class Loading:
    batch: int = 256  # samples of an update
    updates: int = 12  # of a repetition, from the cache
    decoded: int = 2  # likewise, from JPEGs
    repetitions: int = 5


def loading(on_disk: OnDisk, sizes: Loading) -> Iterator[Line]:
    """In this process, on one thread."""
    config = _config(on_disk)
    with one_thread():
        yield from _from_cache(on_disk.updates(config, sizes.batch, "patch tokens"), sizes)
        yield from _beside_decoding(on_disk, config, sizes)


def sending(on_disk: OnDisk, sizes: Loading) -> Iterator[Line]:
    """As a stage has it: one process makes updates, this one takes them, and the CPU seconds of both count."""
    updates = on_disk.updates(_config(on_disk), sizes.batch, "patch tokens")
    stream = iter(loaded(updates, 0, (sizes.repetitions + 1) * sizes.updates, processes=1))
    rates = []
    for _ in range(sizes.repetitions + 1):
        started = _cpu_seconds_of_all()
        for _ in range(sizes.updates):
            next(stream)
        rates.append(sizes.updates * sizes.batch / (_cpu_seconds_of_all() - started))
    told = spread(rates[1:], "{:,.0f}")  # the first one opens the shards and warms up
    yield "loader, cached patch tokens, made in a process and sent, a core", f"{told} samples/s (target ≥ 2,000)"


def _config(on_disk: OnDisk) -> ReViLMConfig:
    return preset(PRESET, end_of_text=on_disk.captions.tokenizer.end_of_text)


def _from_cache(updates: Updates, sizes: Loading) -> Iterator[Line]:
    make = partial(_make, updates, sizes.updates)
    make()  # opens the shards and warms up
    took = in_turns({"cached": make}, sizes.repetitions)["cached"]
    rates = [sizes.updates * sizes.batch / each for each in took]
    yield "loader, cached patch tokens, a core", f"{spread(rates, '{:,.0f}')} samples/s (target ≥ 2,000)"


def _beside_decoding(on_disk: OnDisk, config: ReViLMConfig, sizes: Loading) -> Iterator[Line]:
    """The same pictures; the bare loop has their bytes in memory, and drops the pixels."""
    assert config.vision is not None, "of pretraining"
    samples = sizes.decoded * sizes.batch
    corpus = CorpusReader(on_disk.root)
    jpegs = [corpus.picture(corpus.row(row)) for row in range(samples)]
    updates = on_disk.updates(config, sizes.batch, "pixels")
    works = {
        "loader": partial(_make, updates, sizes.decoded),
        "bare": partial(_decode, jpegs, config.vision.encoder.image_size),
    }
    in_turns(works, 1)  # warms up
    times = in_turns(works, sizes.repetitions)
    for what, name in (("loader, JPEGs, a core", "loader"), ("a bare loop over decode, a core", "bare")):
        yield what, f"{samples / median(times[name]):,.0f} samples/s"
    yield "loader to the bare loop", f"{spread(ratios(times['bare'], times['loader']), '{:.3f}')} (target ≥ 0.9)"


def _make(updates: Updates, count: int) -> None:
    for number in range(count):
        updates[number]


def _decode(jpegs: list[bytes], image_size: int) -> None:
    for jpeg in jpegs:
        decode(jpeg, image_size)


def _cpu_seconds_of_all() -> float:
    """Of this process and of those that it started."""
    ticks = 0
    for process in multiprocessing.active_children():
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # in user and in system mode
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")
