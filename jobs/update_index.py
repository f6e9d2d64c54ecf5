#!/usr/bin/env python
"""A finished index → a new root of it that knows more, or less: corpora added, pairs deleted, nothing trained."""

import sys
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from pipeline.commits import Whole
from pipeline.errors import RecipeError, reporting_errors
from pipeline.progress import show_progress
from pipeline.recipe import Json, dump_recipe, load_recipe, recipe_arguments
from pipeline.run import Run, RunRecipe, executor_for
from pipeline.stage import Stage
from pipeline.storage import absolute_root
from stages.index import Database, IndexFile, IndexSettings, UpdateRecipe, refuse_below_floor, update_stages


class UpdateIndexRecipe(RunRecipe):
    update: UpdateRecipe
    index: IndexSettings = IndexSettings()


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = recipe_arguments(__doc__).parse_args(argv)
    show_progress()
    recipe = load_recipe(UpdateIndexRecipe, given.recipe, given.overrides)
    stages = update_stages(recipe.update, recipe.index)
    refuse_old_root(recipe, stages)
    report = Run(recipe.root, stages, recipe=dump_recipe(recipe)).execute(executor_for(recipe.engine, recipe.cpus))
    print(report)
    if report.exit_code == 0:
        refuse_below_floor(Whole.open(recipe.root, "index_report"), recipe.index)
        say_what_changed(recipe)
    return report.exit_code


def refuse_old_root(recipe: UpdateIndexRecipe, stages: Sequence[Stage[Any]]) -> None:
    """The index that is updated may itself stand on parts in other roots."""
    parts = {source.root for stage in stages for source in stage.inputs if source.root}
    read = map(absolute_root, [recipe.update.index, *recipe.update.add, *parts])
    if absolute_root(recipe.root) in read:
        raise RecipeError(
            f"root {recipe.root!r} is one that the update reads, and roots are never edited: name a new one"
        )


def say_what_changed(recipe: UpdateIndexRecipe) -> None:
    old, new = Database.of_index(recipe.update.index), Database.of_index(recipe.root)
    before, now = index_of(old), index_of(new)
    print(f"Added {new.size - old.size:,} pairs. {say_what_was_deleted(recipe.root) if now.alive else ''}")
    print(f"{now.rows:,} pairs can be found now, {before.rows:,} could before.")
    for was, is_now in zip(at_two(before), at_two(now), strict=True):
        print(
            f"recall@2 of {is_now['direction']} queries: {was['recall']:.4f} before, {is_now['recall']:.4f} now "
            f"({is_now['low']:.3f} to {is_now['high']:.3f}), at nprobe {is_now['nprobe']} and re-rank depth "
            f"{is_now['depth']}"
        )
    print(f"""
Look next at
  python jobs/search.py {recipe.root} --text "a picture that was added"
  python jobs/stats.py {recipe.root}
""")


def say_what_was_deleted(root: str) -> str:
    record = Whole.open(root, "index_alive").read("000000").record
    before, unknown = (int(record.metrics[name]) for name in ("deleted_before", "unknown"))
    return (
        f"Deleted {record.rows_in - record.rows_out:,} pairs; of those asked for, {before:,} were deleted before and "
        f"{unknown:,} are in no corpus."
    )


def index_of(database: Database) -> IndexFile:
    assert database.index is not None, "opened by its index"
    return database.index


def at_two(index: IndexFile) -> list[dict[str, Json]]:
    """Of each direction: what was measured of two neighbours."""
    return sorted((point for point in index.recall if point["k"] == 2), key=itemgetter("direction"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
