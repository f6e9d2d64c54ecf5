#!/usr/bin/env python
"""A captioning set's splits → few-shot evaluation sets: every test picture with some of the train split's."""

import sys
from collections.abc import Sequence

from pydantic import Field

from pipeline.errors import reporting_errors
from pipeline.progress import show_progress
from pipeline.recipe import dump_recipe, load_recipe, recipe_arguments
from pipeline.run import Base, Root, Run, RunRecipe, executor_for
from stages.interleave import FewshotRecipe, fewshot_stages


class MakeFewshotRecipe(RunRecipe):
    """root: a new one; with base, that of another selection gives its keys."""

    base: Base | None = None
    queries: Root  # the root of the test split
    supports: tuple[Root, ...] = Field(min_length=1)  # roots of the train split
    fewshot: FewshotRecipe = FewshotRecipe()


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = recipe_arguments(__doc__).parse_args(argv)
    show_progress()
    recipe = load_recipe(MakeFewshotRecipe, given.recipe, given.overrides)
    stages = fewshot_stages(recipe.fewshot, recipe.supports, recipe.queries)
    run = Run(recipe.root, stages, recipe.base, recipe=dump_recipe(recipe), recipe_name="fewshot.yaml")
    report = run.execute(executor_for(recipe.engine, recipe.cpus))
    print(report)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
