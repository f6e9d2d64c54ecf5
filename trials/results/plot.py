"""The table as bars: CIDEr-D of every arm with every database, a panel a domain, every seed a point."""

from pathlib import Path
from typing import Any

from model.evaluation.contestants import NO_DATABASE
from model.evaluation.measured import NEAREST
from trials.experiments.report import Mean
from trials.results.table import MAIN, Cell, Results

COLOURS = {"none": "tab:grey", "prefix": "tab:orange", "cross": "tab:blue"}


def plot(results: Results, path: Path) -> None:
    """Of the longest answers. Crosses: the nearest neighbour's caption in the answer's place."""
    from matplotlib.figure import Figure

    longest = results.asked_for(max(cell.new_tokens for cell in results.cells))
    cells = sorted(longest, key=lambda cell: cell.shots)
    figure = Figure(figsize=(4 * len(results.domains) + 2, 1.5 + 0.35 * len(cells)), layout="constrained")
    panels = figure.subplots(1, len(results.domains), sharey=True, squeeze=False)[0]
    for axes, domain in zip(panels, results.domains, strict=True):
        _draw(axes, results, cells, domain)
        axes.set_title(f"CIDEr-D{f', domain {domain}' if domain else ''} (×: nearest caption)", fontsize=10)
    panels[0].set_yticks(range(len(cells)), labels=[_name(cell) for cell in cells])
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=120, metadata={"Software": None})  # the same bytes of the same figures


def _draw(axes: Any, results: Results, cells: list[Cell], domain: str) -> None:
    for place, cell in enumerate(cells):
        values = [100 * value for value in results.by_seed(cell, MAIN, domain).values()]
        mean = Mean.of(values)
        axes.barh(place, mean.value, xerr=mean.half_width, color=COLOURS[cell.model], alpha=0.6)
        axes.plot(values, [place] * len(values), "k.", markersize=4)
        nearest = [100 * value for value in results.by_seed(cell, NEAREST + MAIN, domain).values()]
        axes.plot(nearest[:1], [place] * len(nearest[:1]), "rx", markersize=6)


def _name(cell: Cell) -> str:
    database = "" if cell.database == NO_DATABASE else f" · {cell.database}"
    return f"{cell.model}{database} · {cell.shots} shots"
