"""Mining of five-pair samples beside a plain implementation, FAISS and its own bare products; its memory; and a GPU.

Pairs are synthetic, with CLIP's statistics (interleave_vectors.py). Times are of one thread, medians of interleaved
repetitions with the lowest and the highest; what is prepared once is stated apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

Line = tuple[str, str]
HEADLINE = 0.001
DENSITIES = (HEADLINE, 0.0003, 0.01)  # share of the pairs that are in the band


@dataclass(frozen=True)
class Sizes:
    sampled: Mapping[int, int] = field(default_factory=lambda: {20_000: 2048, 100_000: 2048, 400_000: 8192})
    """Rows, and the queries that rivals and brute force answer: their times are scaled by pair."""
    headline_rows: int = 100_000
    block: int = 20_000  # queries that are mined at once
    factories: Sequence[str] = ("Flat", "IVF1024,Flat")  # of FAISS's indexes
    repetitions: int = 5
    cost_rows: int = 20_000
    memory_rows: Sequence[int] = (100_000, 400_000, 1_000_000)
    gpu_rows: Sequence[int] = (1_000_000, 2_000_000)
    largest: int = 400_000  # so many rows and more are raced once, not `repetitions` times


def interleave(sizes: Sizes = Sizes()) -> Iterator[Line]:
    from trials.benchmarks.interleave_costs import costs
    from trials.benchmarks.interleave_gpu import on_gpu
    from trials.benchmarks.interleave_memory import memory
    from trials.benchmarks.interleave_speed import Case, alone, compare, linear

    headline = Case(
        sizes.headline_rows,
        HEADLINE,
        sampled=sizes.sampled[sizes.headline_rows],
        block=sizes.block,
        repetitions=sizes.repetitions,
    )
    yield from compare(replace(headline, factories=tuple(sizes.factories)))
    yield from linear(headline)
    yield from alone(headline)
    for metric in ("l2_squared", "cosine"):
        yield from compare(replace(headline, metric=metric))
    for rows, sampled in sizes.sampled.items():
        for density in DENSITIES:
            if (rows, density) != (headline.rows, headline.density):
                times = 1 if rows >= sizes.largest else sizes.repetitions
                case = replace(headline, rows=rows, density=density, sampled=sampled, repetitions=times)
                yield from compare(case)
    yield from costs(sizes.cost_rows, sizes.block)
    yield from memory(sizes.memory_rows, HEADLINE, sizes.block)
    yield from on_gpu(sizes.gpu_rows, HEADLINE)
