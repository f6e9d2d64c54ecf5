#!/usr/bin/env python
"""Checkpoints, databases and an evaluation set → answers and scores, with everything that they depend on."""

import sys
from collections.abc import Mapping, Sequence

from pydantic import Field

from jobs.stats import show
from model.evaluation.recipe import EvaluationRecipe
from pipeline.errors import reporting_errors
from pipeline.progress import show_progress
from pipeline.recipe import dump_recipe, load_recipe, recipe_arguments
from pipeline.run import Base, Root, Run, RunRecipe, executor_for


class EvaluateRecipe(RunRecipe):
    """models: checkpoints by name, or the folders of finished stages of jobs/train.py. databases: by name, the root of
    a run whose index is finished, or null for none."""

    base: Base | None = None
    models: Mapping[str, Root] = Field(min_length=1)
    databases: Mapping[str, Root | None] = Field(min_length=1)
    evaluation: EvaluationRecipe


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = recipe_arguments(__doc__).parse_args(argv)
    show_progress()
    from model.evaluation.evaluate import evaluation_stages
    from model.evaluation.table import notes, read_scores, scores_table

    recipe = load_recipe(EvaluateRecipe, given.recipe, given.overrides)
    stages = evaluation_stages(recipe.evaluation, recipe.models, recipe.databases)
    run = Run(recipe.root, stages, recipe.base, recipe=dump_recipe(recipe), recipe_name="evaluate.yaml")
    report = run.execute(executor_for(recipe.engine, recipe.cpus))
    print(report)
    if report.exit_code == 0:
        scores = read_scores(recipe.root)
        show({"scores": scores_table(scores)})
        print("\n".join(notes(scores)))
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
