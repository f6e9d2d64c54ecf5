#!/usr/bin/env python
"""Drawn scenes → the demo's own small CLIP, and how good it is: the first stage of a build_index recipe by itself.

build_index with the same recipe goes on from there.
"""

import sys
from collections.abc import Sequence

from demo.encoder import TrainEncoder
from jobs.build_index import BuildIndexRecipe
from pipeline.commits import Whole
from pipeline.errors import RecipeError, reporting_errors
from pipeline.progress import show_progress
from pipeline.recipe import load_recipe, recipe_arguments
from pipeline.run import Run, executor_for


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = recipe_arguments(__doc__).parse_args(argv)
    show_progress()
    recipe = load_recipe(BuildIndexRecipe, given.recipe, given.overrides)
    if recipe.encoder is None:
        raise RecipeError(f"{given.recipe} has no encoder section; `encoder: {{}}` takes the defaults")
    stage = TrainEncoder(recipe.encoder)
    report = Run(recipe.root, [stage], recipe.base).execute(executor_for(recipe.engine, recipe.cpus))
    if report.exit_code == 0:
        whole = Whole.open(recipe.root, stage.name)
        (shard,) = whole.shards
        print(whole.read(shard).path("report").read_text(encoding="utf-8"), end="")
    print(report)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
