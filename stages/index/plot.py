"""The report as a picture: recall against probes, and against modelled cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.index.recall import Point
from stages.index.tuning import TUNED_K
from stages.index.vectors import Direction

SHOWN_DEPTHS = (None, 10, 100, 1000)


def save_plot(points: Sequence[Point], chosen: Sequence[Point], target: float, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    probes, cost = figure.subplots(1, 2, sharey=True)
    _draw_probes(probes, points)
    _draw_cost(cost, points)
    for number, point in enumerate(chosen):
        label = "_" * number + "chosen"  # once in the legend
        probes.plot(point.nprobe, point.recall, "*", color="black", markersize=13)
        cost.plot(point.cost_us, point.recall, "*", color="black", markersize=13, label=label)
    for axes in (probes, cost):
        axes.axhline(target, color="grey", linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.legend(fontsize=8)
    tried = sorted({point.nprobe for point in points})
    probes.set_xticks(tried, labels=tried)
    probes.minorticks_off()
    probes.set_ylabel(f"recall@{TUNED_K}")
    figure.savefig(path, dpi=120)


def _draw_probes(axes: Any, points: Sequence[Point]) -> None:
    for depth in SHOWN_DEPTHS:
        shown = _select(points, "image", depth)
        label = "by codes alone" if depth is None else f"{depth} re-ranked"
        axes.plot([p.nprobe for p in shown], [p.recall for p in shown], ".-", label=label)
    shown = _select(points, "image", None)
    axes.plot([p.nprobe for p in shown], [p.coverage for p in shown], "k--", linewidth=0.8, label="coverage")
    axes.set_xlabel("lists probed")
    axes.set_title("image → image")


def _draw_cost(axes: Any, points: Sequence[Point]) -> None:
    directions: tuple[Direction, ...] = ("image", "text")
    for direction in directions:
        shown = [p for p in points if p.direction == direction and p.k == TUNED_K and p.depth]
        axes.plot([p.cost_us for p in shown], [p.recall for p in shown], ".", label=f"{direction} → image")
    axes.set_xlabel("modelled cost of a query, µs")
    axes.set_title("every nprobe and depth")


def _select(points: Sequence[Point], direction: Direction, depth: int | None) -> list[Point]:
    return [p for p in points if (p.direction, p.k, p.depth) == (direction, TUNED_K, depth)]
