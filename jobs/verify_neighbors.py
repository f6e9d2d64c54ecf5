#!/usr/bin/env python
"""Is any neighbour a leak? Check the finished neighbours of a run against its corpora: every row, every rule, and a
sample of rows searched again by brute force; five-pair samples likewise, where they are named. Exit 0: clean. 1: a
leak, or anything else that is wrong."""

import argparse
import sys
from collections.abc import Sequence

from pipeline.errors import reporting_errors
from stages.neighbors.verify import verify


def natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(f"{number} is below 0")
    return number


@reporting_errors
def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="a run whose neighbours are finished")
    parser.add_argument(
        "--sample", type=natural, default=1000, help="rows that are searched for, and queries mined again (1000)"
    )
    parser.add_argument("--seed", type=natural, default=0, help="of the sample (0)")
    parser.add_argument("--interleaved", metavar="ROOT", help="check the five-pair samples of this run as well")
    given = parser.parse_args(argv)
    findings = verify(given.root, given.sample, given.seed, given.interleaved)
    print(findings)
    return findings.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
