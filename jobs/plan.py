#!/usr/bin/env python
"""What a recipe of jobs/build_index.py will take, before anything starts, and what is left of it later: rows, bytes,
files, CPU and GPU hours, time and cost; with and without its prefilter; and whether the disk has room.

A mark tells how a figure is known. None: counted. ~: measured on committed shards, or on the head of a list, and
taken for the rest. ?: stated, by the recipe or by this program; the table of rates says where it comes from.

Exits 1 where the root's disk has no room for what is to come."""

import json
import sys
from collections.abc import Mapping, Sequence

from jobs.build_index import BuildIndexRecipe
from pipeline.errors import reporting_errors
from pipeline.recipe import load_recipe, recipe_arguments
from stages.index import IndexRecipe
from stages.plan import Figure, Job, PlanRecipe, as_json, plan_of, room_for, tables, written

MARKS = (
    "~ measured and taken for the rest, ? stated (under rates: by whom), no mark: counted. "
    "Cost is in the currency of plan.prices."
)


def job_of(recipe: BuildIndexRecipe) -> Job:
    return Job(
        root=recipe.root,
        stages=recipe.stages(),
        plan=recipe.plan or PlanRecipe(),
        ingest=recipe.ingest,
        download=recipe.download,
        embed=recipe.embed,
        filter=recipe.filter,
        index=recipe.index or IndexRecipe(),
        base=recipe.base,
        width=recipe.encoder.width if recipe.encoder else None,
    )


def show(title: str, rows: "Sequence[Mapping[str, Figure | str]]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, title_style="bold", pad_edge=False)
    for column, cell in rows[0].items():
        table.add_column(column, justify="right" if isinstance(cell, Figure) else "left")
    for row in rows:
        table.add_row(*(written(column, cell) for column, cell in row.items()))
    Console(width=None if sys.stdout.isatty() else 160).print(table, "")


@reporting_errors
def main(argv: Sequence[str]) -> int:
    parser = recipe_arguments(__doc__)
    parser.add_argument("--json", action="store_true", help="one object of all tables, for programs")
    given = parser.parse_intermixed_args(argv)
    plan = plan_of(job_of(load_recipe(BuildIndexRecipe, given.recipe, given.overrides)))
    found, room = tables(plan), room_for(plan)
    if given.json:
        figures = {title: [{k: as_json(v) for k, v in row.items()} for row in rows] for title, rows in found.items()}
        told = {"warnings": plan.warnings, "room": vars(room) | {"enough": room.enough}}
        print(json.dumps(figures | told, indent=1))
    else:
        for title, rows in found.items():
            if rows:
                show(title, rows)
        print(f"{MARKS}\nRoom: {room}")
        for warning in plan.warnings:
            print(f"Beware: {warning}")
    return 0 if room.enough else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
