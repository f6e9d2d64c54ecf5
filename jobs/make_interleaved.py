#!/usr/bin/env python
"""Corpora → samples of five pairs: every pair with four that show something like it and are told alike."""

import sys
from collections.abc import Sequence

from pydantic import Field

from jobs.stats import show
from pipeline.errors import reporting_errors
from pipeline.progress import show_progress
from pipeline.recipe import dump_recipe, load_recipe, recipe_arguments
from pipeline.run import Base, Root, Run, RunRecipe, executor_for
from stages.interleave import InterleaveRecipe, interleave_stages
from stages.report import look_next, tables


class MakeInterleavedRecipe(RunRecipe):
    """root: a new one, or that of a corpus."""

    base: Base | None = None
    corpora: tuple[Root, ...] = Field(min_length=1)  # roots whose pairs are the queries and the supports
    interleave: InterleaveRecipe = InterleaveRecipe()


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = recipe_arguments(__doc__).parse_args(argv)
    show_progress()
    recipe = load_recipe(MakeInterleavedRecipe, given.recipe, given.overrides)
    stages = interleave_stages(recipe.interleave, recipe.corpora)
    run = Run(recipe.root, stages, recipe.base, recipe=dump_recipe(recipe), recipe_name="interleave.yaml")
    report = run.execute(executor_for(recipe.engine, recipe.cpus))
    print(report)
    if report.exit_code == 0:
        found = tables(recipe.root)
        show({title: found[title] for title in ("band", "samples")})
        print(look_next(recipe.root))
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
