#!/usr/bin/env python
"""What a run did: rows and losses stage by stage, sizes, scores, recall, time. Works on a running root too.

python jobs/stats.py ROOT [--json]
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError
from stages.report import tables

if TYPE_CHECKING:
    import polars as pl


def show(frames: "Mapping[str, pl.DataFrame]") -> None:
    """Print each frame that has rows, under its title."""
    from rich.console import Console
    from rich.table import Table

    from stages.report.cells import heading, numeric, rows_of

    console = Console(width=None if sys.stdout.isatty() else 160)
    for title, frame in frames.items():
        if frame.is_empty():
            continue
        table = Table(title=title, title_justify="left", box=None, title_style="bold", pad_edge=False)
        for column, is_number in zip(frame.columns, numeric(frame), strict=True):
            table.add_column(heading(column), justify="right" if is_number else "left")
        for row in rows_of(frame):
            table.add_row(*row)
        console.print(table, "")


def main(argv: Sequence[str]) -> int:
    options = {argument for argument in argv if argument.startswith("-")}
    roots = [argument for argument in argv if argument not in options]
    if len(roots) != 1 or options - {"--json"}:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        found = tables(roots[0])
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options:
        print(json.dumps({title: frame.to_dicts() for title, frame in found.items()}, indent=1))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
