#!/usr/bin/env python
"""A corpus and the databases to look into → the neighbours of every pair, less those that give its caption away."""

import sys
from collections.abc import Sequence

from pipeline.errors import reporting_errors
from pipeline.progress import show_progress
from pipeline.recipe import dump_recipe, load_recipe, recipe_arguments
from pipeline.run import Root, Run, RunRecipe, executor_for
from stages.neighbors import NeighborReader, NeighborsRecipe, neighbor_stages


class PrecomputeNeighborsRecipe(RunRecipe):
    """root: a new one, or the corpus' own."""

    corpus: Root  # the root whose pairs are the queries
    neighbors: NeighborsRecipe = NeighborsRecipe()


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = recipe_arguments(__doc__).parse_args(argv)
    show_progress()
    recipe = load_recipe(PrecomputeNeighborsRecipe, given.recipe, given.overrides)
    stages = neighbor_stages(recipe.neighbors, recipe.corpus)
    run = Run(recipe.root, stages, recipe=dump_recipe(recipe), recipe_name="neighbors.yaml")
    report = run.execute(executor_for(recipe.engine, recipe.cpus))
    print(report)
    if report.exit_code == 0:
        say_what_was_found(recipe.root)
    return report.exit_code


def say_what_was_found(root: str) -> None:
    reader = NeighborReader(root)
    totals = reader.totals
    wanted = totals["queries"] * reader.k
    print(f"{totals['queries']:>15,}  queries, {totals['asked_again']:,} of them asked again to the full depth")
    print(f"{wanted - totals['shortfall']:>15,}  neighbours kept, of {wanted:,} wanted ({reader.k} a query)")
    for name, removed in totals.items():
        if name.startswith("removed_"):
            print(f"{removed:>15,}  candidates removed: same {name.removeprefix('removed_')}")
    print(f"{totals['shortfall']:>15,}  neighbours short")
    print(f"\nLook next at\n  python jobs/verify_neighbors.py {root}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
