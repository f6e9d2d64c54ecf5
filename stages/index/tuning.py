"""The cheapest number of probes and re-rank depth that reach the target recall, by modelled cost, not by the clock."""

from collections.abc import Callable, Iterator, Sequence

from stages.index.recall import Point, cost_us
from stages.index.vectors import Direction

TUNED_K = 2  # Re-ViLM retrieves two neighbours


def tune(
    measure_at: Callable[[int], Sequence[Point]], most_probes: int, target: float
) -> tuple[list[Point], dict[Direction, Point]]:
    """Everything measured, and the point chosen for each direction. More probes are tried until they help neither: the
    probed lists hold every neighbour that is looked for, or scanning them costs more than the best point so far.

    measure_at: nprobe → points of all directions.
    """
    points: list[Point] = []
    for nprobe in probe_steps(most_probes):
        measured = measure_at(nprobe)
        points += measured
        best, last = cheapest(points, target), cheapest(measured, target)
        if all(_settled(best[direction], last[direction], target) for direction in best):
            break
    return points, cheapest(points, target)


def cheapest(points: Sequence[Point], target: float) -> dict[Direction, Point]:
    """Of the re-ranked ones of each direction. Where none reaches the target: the best recall, and the cheapest with
    it."""
    judged = [point for point in points if point.k == TUNED_K and point.depth is not None]
    return {
        direction: min(
            (point for point in judged if point.direction == direction),
            key=lambda point: (-min(point.recall, target), point.cost_us),
        )
        for direction in dict.fromkeys(point.direction for point in judged)
    }


def _settled(best: Point, last: Point, target: float) -> bool:
    return last.coverage == 1 or (best.recall >= target and cost_us(last.codes_scanned, 0) >= best.cost_us)


def probe_steps(most_probes: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, … and most_probes."""
    bits = range(most_probes.bit_length())
    steps = {step for power in bits for step in (1 << power, 3 << power) if step < most_probes}
    return iter(sorted(steps | {most_probes}))
