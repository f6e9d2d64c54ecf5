#!/usr/bin/env python
"""Corpora, their neighbours and five-pair samples → a trained model: one stage of its training.

stage=language | retrofit | pretrain | finetune; each begins with the result of the one before it.
"""

import os
import sys
from collections.abc import Sequence

from pipeline.errors import reporting_errors
from pipeline.progress import show_progress
from pipeline.recipe import load_recipe, recipe_arguments


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = recipe_arguments(__doc__).parse_args(argv)
    show_progress()
    from model.training.launch import launch
    from model.training.recipe import TrainRecipe

    recipe = load_recipe(TrainRecipe, given.recipe, given.overrides)
    told = launch(recipe)
    if os.environ.get("RANK", "0") == "0":  # torchrun starts a driver for every process
        print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
