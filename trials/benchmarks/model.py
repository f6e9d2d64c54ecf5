"""A step of pretraining by part, what retrieval adds to it, what packed rows save, and its rate on a GPU.

A step is forward and backward without the optimizer. On the CPU it runs on one thread in float32; times are CPU
seconds, medians of interleaved repetitions with the lowest and the highest. Captions are real, weights random.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Line = tuple[str, str]


@dataclass(frozen=True)
class Case:
    """A preset, and the captions of its batches."""

    preset: str
    batch: int
    batches: int  # of which packing is measured on
    most: float | None  # of a step of cross, to one of none
    repetitions: int


@dataclass(frozen=True)
class Sizes:
    cpu: Sequence[Case] = (Case("tiny", 32, 8, None, 5), Case("smol", 16, 2, 1.1, 3))
    gpu: Sequence[tuple[str, int]] = (("base", 512), ("medium", 256), ("large", 256))  # presets and pictures of a step


def model(sizes: Sizes = Sizes()) -> Iterator[Line]:
    from trials.benchmarks.model_gpu import on_gpu
    from trials.benchmarks.model_samples import Captions
    from trials.benchmarks.model_steps import overhead, packing, parts
    from trials.benchmarks.race import one_thread

    captions = Captions.read()
    yield "captions", captions.told
    for case in sizes.cpu:
        what = f"{case.preset}, {case.batch} captions"
        with one_thread():
            lines = [
                *parts(case.preset, captions, case.batch, case.repetitions),
                *overhead(case.preset, captions, case.batch, case.most, case.repetitions),
                *packing(case.preset, captions, case.batch, case.batches, case.repetitions),
            ]
        yield from ((f"{what}: {line}", figure) for line, figure in lines)
    yield from on_gpu(sizes.gpu, captions)
