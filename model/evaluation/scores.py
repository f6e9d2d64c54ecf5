"""How good the answers are, figure by figure.

Reads   evaluation_answers, evaluation_matches; corpus: the set's, to know what it lacks
Writes  scores (SCORES) and settings: whatever the figures depend on
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from model.evaluation.answers import EvaluationAnswers
from model.evaluation.bootstrap import Figure
from model.evaluation.evaluation_set import what_is_missing
from model.evaluation.examples import TEXT_ALONE, examples_of
from model.evaluation.jar_metrics import NotComputed
from model.evaluation.matches import EvaluationMatches, Match, read_matches
from model.evaluation.measured import Row, measured
from model.evaluation.recipe import EvaluationRecipe
from model.evaluation.tasks import task_of
from pipeline.checksums import sha256_of_file
from pipeline.errors import ShardFailed
from pipeline.recipe import Json
from pipeline.schemas import SCORES
from pipeline.stage import Counts, Input, Need, Resources, Stage
from pipeline.writer import ShardWriter, Task

CELL = ("model", "database", "shots", "examples", "k", "new_tokens")


@dataclass(frozen=True)
class Due:
    """What a score of the whole set is made of. missing: as what_is_missing tells."""

    missing: str
    questions: int

    def partial(self, rows: Sequence[Row]) -> str:
        """Why the answers of a cell make none; empty: they do."""
        found = [self.missing]
        if unanswered := self.questions - len(rows):
            found.append(f"partial: {unanswered:,} of {self.questions:,} questions have no answer")
        due = TEXT_ALONE if rows[0]["examples"] == "text alone" else rows[0]["shots"]
        if short := sum(row["shown"] < due for row in rows):
            found.append(f"{short:,} of {len(rows):,} prompts have no room for all {due} examples")
        return "; ".join(filter(None, found))


@dataclass(frozen=True)
class EvaluationScores(Stage[None]):
    recipe: EvaluationRecipe
    answers: EvaluationAnswers
    databases: Mapping[str, Sequence[str]]  # by name, the corpora that can be retrieved from
    name, version = "evaluation_scores", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input(EvaluationAnswers.name, Need.WHOLE), Input(EvaluationMatches.name, Need.WHOLE)]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=4)

    def settings(self) -> Mapping[str, Json]:
        named = {"meteor": self.recipe.meteor, "spice": self.recipe.spice}
        jars = {name: sha256_of_file(jar) if jar and jar.is_file() else None for name, jar in named.items()}
        databases = {name: list(corpora) for name, corpora in self.databases.items()}
        looked_through: dict[str, Json] = {"trained_on": list(self.recipe.trained_on), "databases": databases}
        return jars | looked_through | {"seed": self.recipe.seed, "missing": what_is_missing(self.recipe.pictures)}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        answered, seen = task.whole(EvaluationAnswers.name), _seen(read_matches(task.whole(EvaluationMatches.name)))
        rows = sorted(answered.tables("answers").to_pylist(), key=_cell)
        if not rows:
            raise ShardFailed(f"no question has an answer; {EvaluationAnswers.name}/rejects says why")
        by_cell = {cell: list(some) for cell, some in groupby(rows, _cell)}
        made, asked = dict(self.settings()), answered.plan()
        due = Due(str(made["missing"]), int(asked.resolved["questions"]))
        figures = [row for cell in self._cells() for row in self._figures(cell, by_cell.get(cell, []), due, seen)]
        out.table("scores", "scores_{stem}.parquet", pa.Table.from_pylist(figures, schema=SCORES))
        settings = dict(asked.parts["settings"]) | made | {"inputs": asked.parts["inputs"]}
        out.json("settings", "settings_{stem}.json", settings)
        return Counts(len(rows), len(rows))

    def _cells(self) -> list[tuple[Any, ...]]:
        """In order, answered or not."""
        told, new_tokens = task_of(self.recipe).told, self.recipe.new_tokens if self.recipe.choices is None else (0,)
        selections = {shots: examples_of(self.recipe, shots, told).selection for shots in self.recipe.shots}
        return sorted(
            (cell.model, cell.database, shots, selection, cell.k, tokens)
            for cell in self.answers.cells
            for shots, selection in selections.items()
            for tokens in new_tokens
        )

    def _figures(
        self, cell: tuple[Any, ...], rows: Sequence[Row], due: Due, seen: Mapping[str, set[str]]
    ) -> Iterator[dict[str, Any]]:
        told = dict(zip(CELL, cell, strict=True))
        if not rows:
            why = NotComputed(f"no question has an answer; {EvaluationAnswers.name}/rejects says why")
            yield told | {"domain": "", "metric": self._main, "questions": 0} | _values(why, "")
            return
        partial = due.partial(rows)
        looked_through = {"trained_on": self.recipe.trained_on, "database": self.databases.get(told["database"], ())}
        for domain, some in {"": rows, **_by_domain(rows)}.items():
            figures = dict(measured(some, self.recipe))
            for name, corpora in looked_through.items():
                if corpora:
                    figures[f"in_{name}"] = _count(some, [seen.get(corpus, set()) for corpus in corpora])
            for metric, figure in figures.items():
                yield told | {"domain": domain, "metric": metric, "questions": len(some)} | _values(figure, partial)

    @property
    def _main(self) -> str:
        return "cider_d" if self.recipe.vqa is None and self.recipe.choices is None else "accuracy"


def _values(figure: Figure | NotComputed, partial: str) -> dict[str, float | str | None]:
    if isinstance(figure, NotComputed):
        return {"value": None, "low": None, "high": None, "note": str(figure)}
    low, high = (None if np.isnan(bound) else bound for bound in (figure.low, figure.high))
    return {"value": figure.value, "low": low, "high": high, "note": partial}


def _count(rows: Sequence[Row], seen: Sequence[set[str]]) -> Figure:
    """Of pictures that stand in one of the corpora."""
    return Figure(float(sum(any(row["pair_id"] in each for each in seen) for row in rows)), np.nan, np.nan)


def _seen(matches: Sequence[Match]) -> dict[str, set[str]]:
    """Corpus → pictures that stand there."""
    seen: dict[str, set[str]] = {}
    for match in matches:
        seen.setdefault(match.corpus, set()).add(match.picture)
    return seen


def _cell(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in CELL)


def _by_domain(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["domain"]:
            found.setdefault(row["domain"], []).append(row)
    return dict(sorted(found.items()))
