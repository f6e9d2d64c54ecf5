"""Several ways to the same answers, timed in turns on one thread. Imports torch."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from trials.benchmarks.clock import cpu_seconds, seconds

Works = Mapping[str, tuple[Callable[[], object], int]]
"""What is done, and for how many queries, by name."""
Times = Mapping[str, Sequence[float]]
"""ns a pair of a query and a row, in the order of the repetitions, by name."""


@contextmanager
def one_thread() -> Iterator[None]:
    import faiss  # loaded before it is limited

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            assert faiss.omp_get_max_threads() == 1
            yield
    finally:
        torch.set_num_threads(threads)


def raced(works: Works, rows: int, repetitions: int) -> Times:
    """One after the other, and again."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repetitions):
        for name, (do, queries) in works.items():
            times[name].append(1e9 * seconds(do) / queries / rows)
    return times


def in_turns(works: Mapping[str, Callable[[], object]], repetitions: int) -> Mapping[str, Sequence[float]]:
    """CPU seconds of each, one after the other, and again."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repetitions):
        for name, do in works.items():
            times[name].append(cpu_seconds(do))
    return times


def ratios(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(one, other, strict=True)]


def spread(values: Sequence[float], form: str = "{:.1f}") -> str:
    """The median, lowest and highest."""
    return "{} ({} to {})".format(*map(form.format, (statistics.median(values), min(values), max(values))))
