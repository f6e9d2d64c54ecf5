#!/usr/bin/env python
"""Checkpoints, databases and an evaluation set → answers and scores, with everything that they depend on.

Or, by the section `encoder`, how well the pictures and captions of a run find each other."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import model_validator

from jobs.stats import show
from model.evaluation.encoder_recipe import EncoderEvaluationRecipe
from model.evaluation.recipe import EvaluationRecipe
from pipeline.errors import reporting_errors
from pipeline.progress import show_progress
from pipeline.recipe import dump_recipe, load_recipe, recipe_arguments
from pipeline.run import Base, Root, Run, RunRecipe, executor_for
from pipeline.stage import Stage


class EvaluateRecipe(RunRecipe):
    """models: checkpoints by name, or the folders of finished stages of jobs/train.py. databases: by name, the root of
    a run whose index is finished, or null for none."""

    base: Base | None = None
    models: Mapping[str, Root] = {}
    databases: Mapping[str, Root | None] = {}
    evaluation: EvaluationRecipe | None = None
    encoder: EncoderEvaluationRecipe | None = None

    @model_validator(mode="after")
    def _asks_somebody(self) -> Self:
        if self.evaluation is None and self.encoder is None:
            raise ValueError("say what to evaluate: evaluation, of models, or encoder")
        if self.evaluation and not (self.models and self.databases):
            raise ValueError("evaluation asks models with databases: name one of each, or a database that is null")
        return self

    def stages(self) -> list[Stage[Any]]:
        from model.evaluation.encoder_scores import encoder_stages
        from model.evaluation.evaluate import evaluation_stages

        asked = evaluation_stages(self.evaluation, self.models, self.databases) if self.evaluation else []
        return [*asked, *(encoder_stages(self.encoder) if self.encoder else [])]


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = recipe_arguments(__doc__).parse_args(argv)
    show_progress()
    recipe = load_recipe(EvaluateRecipe, given.recipe, given.overrides)
    run = Run(recipe.root, recipe.stages(), recipe.base, recipe=dump_recipe(recipe), recipe_name="evaluate.yaml")
    report = run.execute(executor_for(recipe.engine, recipe.cpus))
    print(report)
    if report.exit_code == 0 and recipe.evaluation:
        say_what_was_found(recipe.root)
    return report.exit_code


def say_what_was_found(root: str) -> None:
    from model.evaluation.table import notes, read_scores, scores_table

    scores = read_scores(root)
    show({"scores": scores_table(scores)})
    print("\n".join(notes(scores)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
