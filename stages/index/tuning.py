"""The cheapest number of probes and re-rank depth that reach the target recall, by modelled cost, not by the clock."""

from collections.abc import Callable, Iterator, Sequence

from stages.index.recall import Point, cost_us

TUNED_K = 2  # Re-ViLM retrieves two neighbours


def tune(measure_at: Callable[[int], Sequence[Point]], nlist: int, target: float) -> tuple[list[Point], Point]:
    """Everything measured, and the point chosen. More probes are tried until they cannot help: the probed lists hold
    every neighbour that is looked for, or scanning them costs more than the best point so far.

    measure_at: nprobe → points of both directions.
    """
    points: list[Point] = []
    for nprobe in probe_steps(nlist):
        measured = measure_at(nprobe)
        points += measured
        best, last = cheapest(points, target), cheapest(measured, target)
        too_dear = best.recall >= target and cost_us(last.codes_scanned, 0) >= best.cost_us
        if too_dear or last.coverage == 1:
            break
    return points, cheapest(points, target)


def cheapest(points: Sequence[Point], target: float) -> Point:
    """Of the re-ranked image queries. Where none reaches the target: the best recall, and the cheapest with it."""
    judged = [p for p in points if p.direction == "image" and p.k == TUNED_K and p.depth is not None]
    return min(judged, key=lambda point: (-min(point.recall, target), point.cost_us))


def probe_steps(nlist: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, … and nlist."""
    steps = {step for power in range(nlist.bit_length()) for step in (1 << power, 3 << power) if step < nlist}
    return iter(sorted(steps | {nlist}))
