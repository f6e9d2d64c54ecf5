"""The cheapest number of probes and re-rank depth that reach the target recall, by modelled cost, not by the clock."""

from collections.abc import Callable, Iterator, Sequence

from stages.index.recall import Point, cost_us
from stages.index.recipe import Direction

TUNED_K = 2  # Re-ViLM retrieves two neighbours


def tune(
    measure_at: Callable[[int], Sequence[Point]], most_probes: int, target: float, directions: Sequence[Direction]
) -> tuple[list[Point], list[Point]]:
    """Everything measured, and the point chosen, of each of the directions. More probes are tried until they cannot
    help: the probed lists hold every neighbour that is looked for, or scanning them costs more than the best so far.

    measure_at: nprobe → points of all directions.
    """
    points: list[Point] = []
    for nprobe in probe_steps(most_probes):
        measured = measure_at(nprobe)
        points += measured
        best, last = cheapest(points, target, directions), cheapest(measured, target, directions)
        dearest = max(point.cost_us for point in best)
        too_dear = worst(best) >= target and max(cost_us(point.codes_scanned, 0) for point in last) >= dearest
        if too_dear or all(point.coverage == 1 for point in last):
            break
    return points, cheapest(points, target, directions)


def cheapest(points: Sequence[Point], target: float, directions: Sequence[Direction]) -> list[Point]:
    """The re-ranked point of each direction at one number of probes and one depth. Where none reaches the target: the
    best recall of the worst direction, and the cheapest with it."""
    judged = [point for point in points if point.k == TUNED_K and point.depth is not None]
    settings: dict[tuple[int, int | None], list[Point]] = {}
    for point in judged:
        if point.direction in directions:
            settings.setdefault((point.nprobe, point.depth), []).append(point)
    return min(settings.values(), key=lambda same: (-min(worst(same), target), max(point.cost_us for point in same)))


def worst(points: Sequence[Point]) -> float:
    return min(point.recall for point in points)


def probe_steps(most_probes: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, … and most_probes."""
    bits = range(most_probes.bit_length())
    steps = {step for power in bits for step in (1 << power, 3 << power) if step < most_probes}
    return iter(sorted(steps | {most_probes}))
