#!/usr/bin/env python
"""Drawn scenes → the demo's own small CLIP, and how good it is: the first stage of a build_index recipe by itself.

python jobs/train_encoder.py RECIPE [section.key=value …]      build_index with the same recipe goes on from there
"""

import logging
import sys
from collections.abc import Sequence

from demo.encoder import TrainEncoder
from jobs.build_index import BuildIndexRecipe, executor_for
from pipeline.commits import Whole
from pipeline.errors import PipelineError, RecipeError
from pipeline.recipe import load_recipe
from pipeline.run import Run


def main(argv: Sequence[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    try:
        recipe = load_recipe(BuildIndexRecipe, argv)
        if recipe.encoder is None:
            raise RecipeError(f"{argv[0]} has no encoder section; `encoder: {{}}` takes the defaults")
        stage = TrainEncoder(recipe.encoder)
        with executor_for(recipe) as executor:
            report = Run(recipe.root, [stage], recipe.base).execute(executor)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if report.exit_code == 0:
        whole = Whole.open(recipe.root, stage.name)
        (shard,) = whole.shards
        print(whole.read(shard).path("report").read_text(encoding="utf-8"), end="")
    print(report)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
