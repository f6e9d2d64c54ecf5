#!/usr/bin/env python
"""What a run did, and how it gets on if it is at work: rates, time left, stragglers, failed shards and their causes;
rows and losses stage by stage, sizes, scores, recall, the band and the supports of samples, time."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import reporting_errors
from stages.report import progress, tables

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


@reporting_errors
def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="a run, finished or not")
    parser.add_argument("--json", action="store_true", help="one object of all tables, for programs")
    parser.add_argument("--progress", action="store_true", help="only how it gets on: at once, however large the run")
    given = parser.parse_args(argv)
    said, found = progress(given.root)
    if given.json:
        found |= {} if given.progress else tables(given.root)
        print(json.dumps({title: frame.to_dicts() for title, frame in found.items()}, indent=1))
        return 0
    print(f"{said}\n")
    show(found)
    if not given.progress:
        show(tables(given.root))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
