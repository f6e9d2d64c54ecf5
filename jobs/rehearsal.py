#!/usr/bin/env python
"""A run of the real size, before it is needed: 75,000 shards on a store that is slow and fails, while workers are
killed, nodes are lost and the driver dies half way. Prints what it cost, and whether every row is accounted for.

On a local root the store's faults are injected; another root (s3://…) is used as it is. A cluster that RAY_ADDRESS
names is used without kills; else two nodes are started on this machine.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence

from pipeline.errors import RecipeError, reporting_errors
from pipeline.storage import absolute_root, open_store
from trials.rehearsal.audit import audit
from trials.rehearsal.report import figures, table
from trials.rehearsal.supervisor import Rehearsal, rehearse


def parsed(argv: Sequence[str]) -> Rehearsal:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="runs/rehearsal", help="new; the report is written to ROOT.json")
    parser.add_argument("--shards", type=int, default=75_000, help="of 8 rows (75,000 take about 40 minutes)")
    parser.add_argument("--seed", type=int, default=0, help="of faults and kills")
    parser.add_argument("--kill-every", type=float, default=20, metavar="S", help="a worker; 20 s")
    parser.add_argument("--lose-every", type=float, default=180, metavar="S", help="a node; 180 s")
    given = parser.parse_args(argv)
    root = absolute_root(given.root)
    if open_store(root).size("rows/plan.json") is not None:
        raise RecipeError(f"--root {root} holds a rehearsal already; remove it or name another")
    return Rehearsal(
        root, given.shards, given.seed, given.kill_every, given.lose_every, kills="RAY_ADDRESS" not in os.environ
    )


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = parsed(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    observed = rehearse(given)
    audited = audit(given.root, given.shards)
    found = figures(given, observed, audited)
    given.beside(".json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    for fault in audited.faults:
        print(fault, file=sys.stderr)
    return 1 if audited.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
