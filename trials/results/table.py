"""The table: every arm with every database, over seeds, beside what it cost and what the nearest caption scores.

Printed scores are × 100, as in papers; ± is Student's 95 % over seeds, and one seed has none. A gain is taken within a
seed, between models that began with the same language model.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from model.evaluation.contestants import NO_DATABASE
from model.evaluation.measured import NEAREST
from trials.experiments.report import Mean
from trials.results.recipe import DATABASES, MODES
from trials.results.training import Cost

MAIN = "cider_d"
TERA = 1e12
COSTS = {"updates": "updates", "samples": "samples", "tokens": "tokens", "TFLOP": "flops"}
METERS = ("loss", "image_shuffle", "neighbor_shuffle", "neighbor_empty")
BySeed = Mapping[int, float]


class Cell(NamedTuple):
    """What is asked in one way. model: its mode."""

    model: str
    database: str
    shots: int
    examples: str
    new_tokens: int

    @property
    def place(self) -> tuple[Any, ...]:
        """In the order in which people read them."""
        return MODES.index(self.model), (NO_DATABASE, *DATABASES).index(self.database), *self[2:]


@dataclass(frozen=True)
class Results:
    """scores: SCORES of every seed, with `seed`; the models are named by their mode. costs: of every training."""

    scores: pl.DataFrame
    costs: tuple[Cost, ...]

    @property
    def domains(self) -> list[str]:
        """All of the set first, by an empty name."""
        return sorted(self.scores["domain"].unique())

    @property
    def cells(self) -> list[Cell]:
        found = self.scores.select(Cell._fields).unique().iter_rows()
        return sorted((Cell(*row) for row in found), key=lambda cell: cell.place)

    def asked_for(self, new_tokens: int) -> list[Cell]:
        return [cell for cell in self.cells if cell.new_tokens == new_tokens]

    def by_seed(self, cell: Cell, metric: str, domain: str = "") -> BySeed:
        """Empty: no seed has one."""
        asked = cell._asdict() | {"metric": metric, "domain": domain}
        found = self.scores.filter(*(pl.col(name) == value for name, value in asked.items()))
        return dict(found.drop_nulls("value").select("seed", "value").sort("seed").iter_rows())

    def gain(self, cell: Cell, domain: str = "") -> BySeed:
        """CIDEr-D over that of the arm that reads no neighbours, with the same seed and shots. Empty: it is that arm,
        or there is none."""
        if cell.model == "none":
            return {}
        found = self.by_seed(cell, MAIN, domain)
        without = self.by_seed(cell._replace(model="none", database=NO_DATABASE), MAIN, domain)
        return {seed: found[seed] - without[seed] for seed in found.keys() & without.keys()}

    def means(self) -> pl.DataFrame:
        """A row a figure, with its mean over seeds: every metric of `scores`, and `gain`."""
        metrics = self.scores.select("domain", "metric").unique(maintain_order=True).rows()
        figures = [(cell, *which, self.by_seed(cell, which[1], which[0])) for cell in self.cells for which in metrics]
        figures += [(cell, domain, "gain", self.gain(cell, domain)) for cell in self.cells for domain in self.domains]
        return pl.DataFrame([_row(*figure) for figure in figures if figure[-1]])


def _row(cell: Cell, domain: str, metric: str, by_seed: BySeed) -> dict[str, Any]:
    mean = Mean.of(list(by_seed.values()))
    told = {"domain": domain, "metric": metric, "mean": mean.value, "half_width": mean.half_width}
    return cell._asdict() | told | {"seeds": list(by_seed), "values": list(by_seed.values())}


def markdown(results: Results) -> str:
    """The longest answers first."""
    parts = []
    for new_tokens in sorted({cell.new_tokens for cell in results.cells}, reverse=True):
        cells = results.asked_for(new_tokens)
        parts += [f"## Answers of at most {new_tokens} tokens", _scores(results, cells)]
        parts += ["Gain over `none` with the same seed and shots:", _gains(results, cells)]
    parts += ["## The nearest neighbour's caption as the answer", _nearest(results)]
    return "\n\n".join([*parts, "## The trainings", _trainings(results.costs)])


def _scores(results: Results, cells: Sequence[Cell]) -> str:
    heading = ["neighbours", "database", "shots", "examples", *_columns(results), "BLEU-4", "copied %"]
    heading += ["pretrain samples", "pretrain TFLOP", "retrofit TFLOP"]
    rows = [
        [
            *map(str, cell[:-1]),
            *(_told(results.by_seed(cell, MAIN, domain)) for domain in results.domains),
            *(_told(results.by_seed(cell, metric)) for metric in ("bleu_4", "copied")),
            _spent(results.costs, cell.model, "pretrain", "samples"),
            *(_spent(results.costs, cell.model, stage, "flops") for stage in ("pretrain", "retrofit")),
        ]
        for cell in cells
    ]
    return _table(heading, rows)


def _gains(results: Results, cells: Sequence[Cell]) -> str:
    rows = [
        [*map(str, cell[:3]), *(_told(results.gain(cell, domain), "{:+.1f}") for domain in results.domains)]
        for cell in cells
        if cell.model != "none"
    ]
    return _table(["neighbours", "database", "shots", *_columns(results)], rows)


def _nearest(results: Results) -> str:
    """Which captions are nearest depends on the database and on what is shown already, not on the model."""
    asked = {(cell.database, str(cell.shots)): cell for cell in results.cells if cell.model != "none"}
    rows = [
        [*told, *(_told(_one(results.by_seed(cell, NEAREST + MAIN, domain))) for domain in results.domains)]
        for told, cell in asked.items()
    ]
    return _table(["database", "shots", *_columns(results)], rows)


def _columns(results: Results) -> list[str]:
    return [f"CIDEr-D, {domain}" if domain else "CIDEr-D" for domain in results.domains]


def _trainings(costs: Sequence[Cost]) -> str:
    """What each took, and the meters of its last evaluation (model.training.grounding), as means over seeds."""
    arms = dict.fromkeys((cost.mode, cost.stage) for cost in costs)
    rows = [
        ["all" if stage == "language" else mode, stage]
        + [_spent(costs, mode, stage, what) for what in COSTS.values()]
        + [_found(costs, mode, stage, meter) for meter in METERS]
        for mode, stage in arms
    ]
    return _table(["neighbours", "stage", *COSTS, *METERS], rows)


def _found(costs: Sequence[Cost], mode: str, stage: str, meter: str) -> str:
    """In nats a token. Empty: it has no such meter."""
    some = [
        cost.figures[meter][0] for cost in costs if (cost.mode, cost.stage) == (mode, stage) if meter in cost.figures
    ]
    return Mean.of(some).told("{:.3f}") if some else ""


def _spent(costs: Sequence[Cost], mode: str, stage: str, what: str) -> str:
    """The mean over seeds, which differ by little. Empty: the arm has no such stage."""
    spent = [getattr(cost, what) for cost in costs if (cost.mode, cost.stage) == (mode, stage)]
    if not spent:
        return ""
    mean = statistics.fmean(spent)
    return f"{mean / TERA:.3g}" if what == "flops" else f"{mean:,.0f}"


def _one(by_seed: BySeed) -> BySeed:
    return dict(list(by_seed.items())[:1])


def _told(by_seed: BySeed, form: str = "{:.1f}") -> str:
    """× 100."""
    if not by_seed:
        return ""
    mean = Mean.of([100 * value for value in by_seed.values()])
    told = form.format(mean.value)
    return told if mean.half_width is None else f"{told} ± {mean.half_width:.1f}"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
