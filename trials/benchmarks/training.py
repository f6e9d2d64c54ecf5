"""The trainer: its loader, loop, checkpoints and workers, each beside a bound; on a GPU its share of the card's peak.

Training is stage pretrain in mode cross, of random weights. Figures are medians, with the lowest and the highest; those
in CPU seconds hardly depend on what else runs on the machine, those by the wall clock do.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trials.benchmarks.model_samples import Captions
    from trials.benchmarks.training_data import OnDisk

Line = tuple[str, str]
PAIRS = 4096  # on the disk, with their patch tokens 0.4 GB


def training() -> Iterator[Line]:
    from trials.benchmarks.model_samples import Captions
    from trials.benchmarks.training_data import OnDisk

    captions = Captions.read()
    yield "captions", captions.told
    yield from in_memory(captions)
    with OnDisk.drawn(PAIRS, captions) as on_disk:
        yield from from_disk(on_disk)


def in_memory(captions: "Captions") -> Iterator[Line]:
    from trials.benchmarks.training_checkpoints import Saving, saving
    from trials.benchmarks.training_loop import Looping, beside_bare
    from trials.benchmarks.training_workers import Doubling, doubling

    for looping in (Looping("nano", 32), Looping("tiny", 32, updates=3)):
        yield from beside_bare(captions, looping)
    yield from doubling(captions, Doubling("tiny", 64))
    for case in (Saving("nano", 32), Saving("tiny", 32), Saving("base", 8, minutes=30)):
        yield from saving(captions, case)


def from_disk(on_disk: "OnDisk") -> Iterator[Line]:
    from trials.benchmarks.training_gpu import OnGpu, on_gpu
    from trials.benchmarks.training_loader import Loading, loading, sending
    from trials.benchmarks.training_loop import Feeding, waits

    yield from loading(on_disk, Loading())
    yield from sending(on_disk, Loading())
    for feeding in (Feeding("nano", 32), Feeding("tiny", 32)):
        yield from waits(on_disk, feeding)
    yield from on_gpu(on_disk, OnGpu())
