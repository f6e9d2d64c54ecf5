"""What the trainer is measured with, and that its tables state the targets beside what they hold for."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

from model.presets import preset
from model.training.updates import Update
from trials.benchmarks.model_samples import Captions
from trials.benchmarks.training_checkpoints import Saving, saving
from trials.benchmarks.training_data import NEIGHBORS, SOURCE, OnDisk, ready
from trials.benchmarks.training_gpu import OnGpu, on_gpu
from trials.benchmarks.training_loader import Loading, loading, sending
from trials.benchmarks.training_loop import Feeding, Looping, beside_bare, waits
from trials.benchmarks.training_workers import Doubling, doubling

PAIRS = 16


@pytest.fixture(scope="module")
def captions() -> Captions:
    return Captions.drawn(4096)


@pytest.fixture(scope="module")
def on_disk(captions: Captions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnDisk]:
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("on_disk"))
    try:
        with OnDisk.drawn(PAIRS, captions) as drawn:
            yield drawn
    finally:
        os.chdir(before)


def lines(told: Iterable[tuple[str, str]]) -> dict[str, str]:
    return dict(told)


def targets(told: dict[str, str]) -> list[str]:
    return [figure.split("(target ")[1].removesuffix(")") for figure in told.values() if "target" in figure]


def sizes(update: Update) -> tuple[int, int, bool]:
    """Pictures, sets of neighbours, and whether patch tokens are given."""
    (micro,) = update.micro_batches
    return len(micro.batch.frames), len(micro.batch.evidence), micro.batch.patches is not None


def test_pairs_on_the_disk_come_with_pictures_and_neighbors_whichever_way_pictures_are_given(on_disk: OnDisk) -> None:
    config = preset("base", end_of_text=on_disk.captions.tokenizer.end_of_text)
    cached, decoded = (on_disk.updates(config, PAIRS, given)[0] for given in ("patch tokens", "pixels"))
    assert not cached.skipped
    assert len(set(cached.ids[SOURCE])) == PAIRS
    assert cached.ids == decoded.ids
    assert sizes(cached) == (PAIRS, PAIRS, True)
    assert sizes(decoded) == (PAIRS, PAIRS, False)
    assert cached.micro_batches[0].batch.patches is not None
    assert cached.micro_batches[0].batch.patches.shape == (PAIRS, 49, 768)
    tokens = cached.micro_batches[0].batch
    ends = (tokens.evidence == config.language_model.end_of_text) & tokens.evidence_mask
    assert ends.sum(1).tolist() == [NEIGHBORS] * PAIRS


def test_updates_in_memory_are_of_the_stated_size(captions: Captions) -> None:
    config = preset("nano", end_of_text=captions.tokenizer.end_of_text)
    updates = ready(captions, config, 4, "patch tokens", 3)
    assert [update.samples for update in updates] == [4, 4, 4]
    assert sizes(updates[2]) == (4, 4, True)


def test_the_loader_is_measured_from_the_cache_and_from_jpegs(on_disk: OnDisk) -> None:
    told = lines(loading(on_disk, Loading(batch=8, updates=1, decoded=1, repetitions=1)))
    assert targets(told) == ["≥ 2,000", "≥ 0.9"]


def test_the_loop_stands_beside_a_bare_one(captions: Captions) -> None:
    assert targets(lines(beside_bare(captions, Looping("nano", 2, updates=1, repetitions=1)))) == ["≥ 0.95"]


def test_a_checkpoint_is_written_read_and_counted_by_the_hour(
    captions: Captions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = lines(saving(captions, Saving("nano", 2, minutes=10, repetitions=1)))
    assert targets(told) == ["< 1%"]
    assert any("every 10 minutes" in what for what in told)


def test_a_missing_gpu_is_said_of_every_model(on_disk: OnDisk) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert list(lines(on_gpu(on_disk, OnGpu())).values()) == ["not run: no GPU"] * 3


@pytest.mark.slow
def test_processes_that_load_and_train_are_measured(on_disk: OnDisk) -> None:
    told = lines(sending(on_disk, Loading(batch=8, updates=1, repetitions=1)))
    told |= lines(waits(on_disk, Feeding("nano", 2, updates=2, first=1)))
    told |= lines(doubling(on_disk.captions, Doubling("nano", 4, updates=1, repetitions=1)))
    assert targets(told) == ["≥ 2,000", "≤ 5 %", "≥ 1.6"]
    told = lines(on_gpu(on_disk, OnGpu((("nano", 8),), (False,), first=1, updates=1, device="cpu")))
    assert all("samples/s" in figure for figure in told.values())
