#!/usr/bin/env python
"""A corpus → the patch tokens of its pictures by a frozen image encoder, which a trainer reads in place of pictures."""

import sys
from collections.abc import Sequence

from model.training.patches import Patches, PatchesRecipe
from pipeline.errors import reporting_errors
from pipeline.progress import show_progress
from pipeline.recipe import dump_recipe, load_recipe, recipe_arguments
from pipeline.run import Root, Run, RunRecipe, executor_for


class CachePatchesRecipe(RunRecipe):
    """root: a new one, or the corpus' own."""

    corpus: Root
    patches: PatchesRecipe


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = recipe_arguments(__doc__).parse_args(argv)
    show_progress()
    recipe = load_recipe(CachePatchesRecipe, given.recipe, given.overrides)
    stage = Patches.of(recipe.patches, recipe.corpus)
    run = Run(recipe.root, [stage], recipe=dump_recipe(recipe), recipe_name="patches.yaml")
    report = run.execute(executor_for(recipe.engine, recipe.cpus))
    print(report, end="\n" if report.exit_code else "")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
