"""What checkpoints take of an hour's training: to write them as often as is stated, and to read one. Imports torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, TemporaryFile

from torch.optim import AdamW

from model.checkpoint import Reference, from_pretrained, save_pretrained, tensors_digest
from model.freezing import TRAINED, freeze
from model.revilm import ReViLM
from model.tokenizer import Tokenizer
from model.training.checkpoints import MODEL, Checkpoints
from model.training.loop import train
from model.training.optimizer import adam_w
from model.training.persistence import OPTIMIZER, gathered, read_moments, write_checkpoint
from model.training.world import World
from trials.benchmarks.clock import seconds
from trials.benchmarks.model_samples import Captions
from trials.benchmarks.race import one_thread, spread
from trials.benchmarks.training_data import ready, trainee
from trials.benchmarks.training_loop import PACE, WEIGHT_DECAY, Kept

Line = tuple[str, str]
EVERY = 500  # updates, as a recipe has it unless it says otherwise
HOUR = 3600  # s
SHARE = 0.01  # of the hour, at most
BLOCK = os.urandom(2**20)


@dataclass(frozen=True)
class Saving:
    preset: str
    batch: int  # samples of an update
    minutes: float | None = None  # between checkpoints; None: EVERY updates, as long as they take here
    repetitions: int = 3


def saving(captions: Captions, case: Saving) -> Iterator[Line]:
    """By the wall clock, until the files outlast a power cut."""
    kept = Kept()
    with one_thread(), _stage(captions, case, kept) as stage:
        writes = [seconds(stage.write) for _ in range(case.repetitions)]
        reads = [seconds(stage.read) for _ in range(case.repetitions)]
        bare = [seconds(stage.write_bare) for _ in range(case.repetitions)]
        size = stage.bytes / 1e6
    if case.minutes is None:
        interval = EVERY * median(sum(stepped.seconds.values()) for stepped in kept.stepped[1:])
        often = f"every {EVERY} updates of {case.batch} samples, {interval / 60:.1f} minutes here"
    else:
        interval, often = 60 * case.minutes, f"every {case.minutes:g} minutes"
    share = median(writes) / interval + median(reads) / HOUR
    yield f"{case.preset}: a checkpoint of {size:,.0f} MB is written", f"{spread(writes, '{:.2f}')} s"
    yield f"{case.preset}: as many bytes, written and synced by themselves", f"{spread(bare, '{:.2f}')} s"
    yield f"{case.preset}: the checkpoint is read", f"{spread(reads, '{:.2f}')} s"
    yield f"{case.preset}: share of an hour, {often}, one of them read", f"{share:.2%} (target < {SHARE:.0%})"
    yield f"{case.preset}: minutes between checkpoints that cost {SHARE:.0%}", f"{median(writes) / SHARE / 60:.1f}"


@dataclass(frozen=True)
class Stage:
    """A model in training and its checkpoints, which refer to the frozen parts as a stage's do."""

    model: ReViLM
    optimizer: AdamW
    tokenizer: Tokenizer
    frozen: dict[str, Reference]
    checkpoints: Checkpoints

    def write(self) -> None:
        tensors = gathered(self.model, self.optimizer, self.frozen, keep=True)
        with self.checkpoints.writing(len(self.checkpoints.records())) as folder:
            write_checkpoint(folder, self.model.config, self.tokenizer, tensors, self.frozen, {})

    def read(self) -> None:
        """Into a model and an optimiser that could go on."""
        (latest,) = self.checkpoints.records()[-1:]
        with self.checkpoints.opened(latest) as folder:
            model = from_pretrained(folder / MODEL).model
            freeze(model, "pretrain")
            read_moments(folder / OPTIMIZER, model, adam_w(model, weight_decay=WEIGHT_DECAY), 1)

    def write_bare(self) -> None:
        with TemporaryFile(dir=self.checkpoints.folder) as file:
            for _ in range(0, self.bytes, len(BLOCK)):
                file.write(BLOCK)
            file.flush()
            os.fsync(file.fileno())

    @property
    def bytes(self) -> int:
        (latest,) = self.checkpoints.records()[-1:]
        return sum(entry.bytes for entry in latest.files)


@contextmanager
def _stage(captions: Captions, case: Saving, kept: Kept) -> Iterator[Stage]:
    """After some updates, so that there are moments; one with an interval of its own is told no pace."""
    model = trainee(case.preset, captions)
    optimizer = adam_w(model, weight_decay=WEIGHT_DECAY)
    updates = ready(captions, model.config, case.batch, "patch tokens", 1 if case.minutes else 6)
    train(model, optimizer, updates, PACE, World.here(), kept)
    with TemporaryDirectory(dir=".") as folder:
        before = Path(folder, "before").absolute()
        save_pretrained(before, model, captions.tokenizer)
        frozen = {
            part: Reference(place=str(before), sha256=tensors_digest(module))
            for part, module in model.named_children()
            if part not in TRAINED["pretrain"]
        }
        yield Stage(model, optimizer, captions.tokenizer, frozen, Checkpoints(f"{folder}/stage"))
