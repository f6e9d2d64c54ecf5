"""The stage that makes the table.

Reads   evaluation_scores, and the cost of every training
Writes  report (Markdown), plot (PNG), results (parquet) and csv: a row a figure, its mean over seeds
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from model.evaluation.scores import EvaluationScores
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Stage
from pipeline.writer import ShardWriter, Task
from stages.filter import Corpus
from trials.results.heading import heading
from trials.results.plot import plot
from trials.results.recipe import DATABASES, ResultsRecipe
from trials.results.table import Results, markdown
from trials.results.training import Cost, name_of

SCORES = EvaluationScores.name
REPORT, PLOT, TABLE, CSV = "results.md", "results.png", "results.parquet", "results.csv"


@dataclass(frozen=True)
class ResultsTable(Stage[None]):
    """trainings: the names of a seed's, which lie in one root with its scores."""

    recipe: ResultsRecipe
    trainings: tuple[str, ...]
    name, version = "results", 1

    @property
    def inputs(self) -> Sequence[Input]:
        of_seed = [(name_of(seed), stage) for seed in self.recipe.seeds for stage in (SCORES, *self.trainings)]
        corpora = [(name, Corpus.name) for name in (*DATABASES, "test")]
        return [
            Input(stage, Need.WHOLE, self.recipe.place(root), _key(root, stage)) for root, stage in of_seed + corpora
        ]

    def settings(self) -> Mapping[str, Json]:
        return {"note": self.recipe.note, "preset": self.recipe.training.model.preset, "seeds": self.recipe.seeds}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        results = Results(pl.concat(self._scores(task)), tuple(self._costs(task)))
        pairs = {name: task.whole(_key(name, Corpus.name)).rows for name in (*DATABASES, "test")}
        report = f"{heading(self.recipe, results, pairs)}\n\n{markdown(results)}\n"
        out.file(REPORT, "results_{stem}.md").write_text(report, encoding="utf-8")
        plot(results, out.file(PLOT, "results_{stem}.png"))
        means = results.means()
        out.table(TABLE, "results_{stem}.parquet", means.to_arrow())
        means.drop("seeds", "values").write_csv(out.file(CSV, "results_{stem}.csv"))
        return Counts(len(means), len(means))

    def _scores(self, task: Task) -> Iterator[pl.DataFrame]:
        for seed in self.recipe.seeds:
            scores = pl.DataFrame(task.whole(_key(name_of(seed), SCORES)).tables("scores"))
            yield scores.with_columns(seed=pl.lit(seed))

    def _costs(self, task: Task) -> Iterator[Cost]:
        for seed in self.recipe.seeds:
            for training in self.trainings:
                whole = task.whole(_key(name_of(seed), training))
                yield from (Cost.model_validate(whole.read(shard).json("cost")) for shard in whole.shards)


def _key(root: str, stage: str) -> str:
    return f"{root} {stage}"
