"""What an experiment gave, over its seeds: figures as CSV, a table in Markdown, and a plot.

An interval is Student's, of 95 %, over seeds; one seed has none.
"""

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trials.experiments.runs import Measured

STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Factor of the standard error by number of seeds."""
SHARES = ("name", "number", "colour")
Row = Mapping[str, str]
"""A line of CSV: of an arm under a condition, with one seed."""


@dataclass(frozen=True)
class Mean:
    value: float
    half_width: float | None  # of the interval

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        factor = STUDENT.get(len(values))
        half_width = None if factor is None else factor * statistics.stdev(values) / math.sqrt(len(values))
        return cls(statistics.fmean(values), half_width)

    def told(self, form: str) -> str:
        value = form.format(self.value)
        return value if self.half_width is None else f"{value} ± {form.format(self.half_width)}"


def write_figures(path: Path, measured: Iterable[Measured]) -> None:
    """One line each, written when all are there: a file is whole or not there."""
    rows = [_flat(asdict(each)) for each in measured]
    scratch = path.with_suffix(".part")
    with scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    scratch.replace(path)


def read_figures(paths: Iterable[Path]) -> list[Row]:
    rows: list[Row] = []
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            rows += csv.DictReader(file)
    return rows


def heading(rows: Sequence[Row]) -> str:
    seeds = sorted({int(row["seed"]) for row in rows})
    return f"Seeds {', '.join(map(str, seeds))}; {rows[0]['questions']} questions each."


def table(rows: Sequence[Row]) -> str:
    """In Markdown, a line for an arm under a condition, in the order in which they were measured."""
    lines = [
        "| arm | names stand in | name % | number % | colour % | loss | old name % | copied % | same group % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (arm, condition), some in _by_arm(rows).items():
        percent = [_percent(some, f"scores.{name}") for name in SHARES]
        others = [_percent(some, name) for name in ("scores.old_name", "scores.copied", "same_group")]
        loss = Mean.of(_numbers(some, "scores.loss")).told("{:.3f}")
        lines.append(f"| {' | '.join([arm, condition, *percent, loss, *others])} |")
    return "\n".join(lines) + "\n"


def cost_table(rows: Sequence[Row]) -> str:
    """What each stage of an arm's training took, as the mean over seeds."""
    lines = ["| arm | stage | updates | samples | TFLOP | CPU s |", "| --- | --- | --- | --- | --- | --- |"]
    for (arm, _), some in {key[0]: (key, some) for key, some in _by_arm(rows).items()}.values():
        for stage in ("language", "retrofit", "pretrain"):
            spent = {
                name: statistics.fmean(_numbers(some, f"{stage}.{name}"))
                for name in ("updates", "samples", "flops", "cpu_s")
            }
            if spent["updates"]:
                figures = "{updates:,.0f} | {samples:,.0f} | {tera:.2f} | {cpu_s:.0f}".format(
                    **spent, tera=spent["flops"] / 1e12
                )
                lines.append(f"| {arm} | {stage} | {figures} |")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bars of the three shares by arm and condition, with intervals and every seed as a point; lines at chance."""
    from matplotlib.figure import Figure

    groups = _by_arm(rows)
    by_chance = groups[("chance", "")]
    shown = {key: some for key, some in groups.items() if key[0] != "chance"}
    figure = Figure(figsize=(11, 1.5 + 0.45 * len(shown)), layout="constrained")
    for axes, share in zip(figure.subplots(1, len(SHARES), sharey=True), SHARES, strict=True):
        _draw(axes, shown, f"scores.{share}")
        axes.axvline(100 * _numbers(by_chance, f"scores.{share}")[0], color="grey", linestyle=":")
        axes.set_title(f"{share}, % right (dotted: chance)", fontsize=10)
        axes.set_xlim(0, 102)
    figure.savefig(path, dpi=120)


def _draw(axes: Any, groups: Mapping[tuple[str, str], Sequence[Row]], column: str) -> None:
    for place, some in enumerate(groups.values()):
        values = [100 * value for value in _numbers(some, column)]
        mean = Mean.of(values)
        axes.barh(place, mean.value, xerr=mean.half_width, color="tab:blue", alpha=0.5)
        axes.plot(values, [place] * len(values), "k.", markersize=4)
    axes.set_yticks(range(len(groups)), labels=[f"{arm}: {condition}" for arm, condition in groups])
    if not axes.yaxis_inverted():
        axes.invert_yaxis()


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _by_arm(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["arm"], row["condition"]), []).append(row)
    return groups


def _numbers(rows: Sequence[Row], column: str) -> list[float]:
    return [float(row[column]) for row in rows if row[column]]


def _percent(rows: Sequence[Row], column: str) -> str:
    values = [100 * value for value in _numbers(rows, column)]
    return Mean.of(values).told("{:.1f}") if values else ""
