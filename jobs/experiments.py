#!/usr/bin/env python
"""The paper's effects at small scale, on drawn pictures whose names only the database tells. Prints tables in Markdown.

names        a model without a database beside one with; the database's names are drawn anew (three arms)
leakage      the leakage rules off, on, and token dropout in their place (three arms; one is of names)
prefix       neighbours by cross-attention, or as text in front of the picture (two arms; one is of names)
interleaved  pairs alone, or five-pair samples among them; names stand in the supports (two arms; one is of names)

OUT gets, of every experiment, the figures of each seed (CSV), a table and a plot over all seeds that are there. What
is there is not made again. The encoder is trained first, unless one is given.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import reporting_errors
from pipeline.progress import show_progress

EXPERIMENTS = ("names", "leakage", "prefix", "interleaved")


@reporting_errors
def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="*", choices=[*EXPERIMENTS, "all"], default="all", help="all unless told")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"), help="a folder (runs/experiments)")
    parser.add_argument("--seeds", type=int, choices=range(1, 9), default=1, help="so many, from 1 on: 1…8 (1)")
    parser.add_argument("--encoder", type=Path, help="a folder that open_clip opens, with a vision transformer")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    given = parser.parse_args(argv)
    show_progress()
    from trials.experiments.series import Series

    series = Series(given.out, given.encoder, given.threads)
    chosen = EXPERIMENTS if "all" in given.experiment else given.experiment
    for seed in range(1, given.seeds + 1):
        series.measure(seed, chosen)
    for experiment in chosen:
        print(f"\n{experiment}\n\n{series.report(experiment)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
