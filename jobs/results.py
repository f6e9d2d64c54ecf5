#!/usr/bin/env python
"""Three captioning sets → models that read neighbours in several ways → one table of what each database gives them.

What is there is not made again: the same command goes on where it stood, and adds what a changed recipe lacks.
"""

import sys
from collections.abc import Sequence

from pipeline.errors import reporting_errors
from pipeline.progress import show_progress
from pipeline.recipe import load_recipe, recipe_arguments


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = recipe_arguments(__doc__).parse_args(argv)
    show_progress()
    from trials.results.recipe import ResultsRecipe
    from trials.results.series import results

    print(results(load_recipe(ResultsRecipe, given.recipe, given.overrides)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
