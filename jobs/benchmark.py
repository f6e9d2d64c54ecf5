#!/usr/bin/env python
"""What the frame and the stages cost, as ratios to a bound or a peer in the same run.

python jobs/benchmark.py [PART …]      prints a table in Markdown; all parts without a name
  frame      scheduling and committing, beside a bare window of tasks (1 minute)
  resume     the start of a run that is finished (3 minutes)
  recovery   what the loss of a node costs (3 minutes)
  scale      the driver's memory and CPU up to 75,000 shards (15 minutes)
  embed      the embed stage beside its bare model (1 minute)
"""

import os
import platform
import sys
from collections.abc import Sequence

from trials.benchmarks.embedding import embed
from trials.benchmarks.frame import frame
from trials.benchmarks.recovery import recovery
from trials.benchmarks.scale import resume, scale

PARTS = {"frame": frame, "resume": resume, "recovery": recovery, "scale": scale, "embed": embed}


def main(argv: Sequence[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    unknown = sorted(set(argv) - PARTS.keys())
    if unknown:
        print(f"{unknown[0]!r} is no part; the parts are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    for part in argv or PARTS:
        print(f"| {part} | |\n| --- | --- |")
        for what, figure in PARTS[part]():
            print(f"| {what} | {figure} |", flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
