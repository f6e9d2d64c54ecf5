#!/usr/bin/env python
"""A run of the real size, before it is needed: 75,000 shards on a store that is slow and fails, while workers are
killed, nodes are lost and the driver dies half way. Prints what it cost, and whether every row is accounted for.

Without RAY_ADDRESS two nodes are started on this machine, and there alone processes are killed, the driver too. Where
besides the root is local, it is served as an object store that is slow and fails. A root that is a url (s3://…) is used
as it is, and so is any root on a cluster that RAY_ADDRESS names.

The report (report.json), the drivers' log and the counts of calls lie in ROOT.trial/, or in runs/NAME.trial/ where the
root is a url that ends in NAME.
"""

import argparse
import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from pipeline.errors import RecipeError, reporting_errors
from pipeline.storage import absolute_root, open_store
from trials.rehearsal.audit import audit
from trials.rehearsal.report import figures, table
from trials.rehearsal.supervisor import Rehearsal, rehearse

SHOWN = 20  # faults


def parsed(argv: Sequence[str]) -> Rehearsal:
    """Raises RecipeError where an earlier rehearsal is in the way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="runs/rehearsal", help="new, as is ROOT.trial; a local one is made faulty")
    parser.add_argument("--shards", type=int, default=75_000, help="of 8 rows (75,000 take about 40 minutes)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the random draws; runs still differ, because processes race"
    )
    parser.add_argument("--kill-every", type=float, default=20, metavar="S", help="a worker; 20 s")
    parser.add_argument("--lose-every", type=float, default=180, metavar="S", help="a node; 180 s")
    parser.add_argument(
        "--cpus", type=int, default=8, help="of each own node; a worker mostly waits, so more than real"
    )
    given = parser.parse_args(argv)
    rehearsal = Rehearsal(
        absolute_root(given.root),
        given.shards,
        given.seed,
        given.kill_every,
        given.lose_every,
        own_nodes="RAY_ADDRESS" not in os.environ,
        cpus=given.cpus,
    )
    _refuse_leftovers(rehearsal)
    return rehearsal


def _refuse_leftovers(given: Rehearsal) -> None:
    places = {given.root: bool(open_store(given.root).list("")), str(given.folder): given.folder.exists()}
    in_the_way = [place for place, taken in places.items() if taken]
    if in_the_way:
        raise RecipeError(f"a rehearsal needs a new root; remove {' and '.join(in_the_way)}, or give another --root")


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = parsed(argv)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("rehearsal").setLevel(logging.INFO)
    observed = rehearse(given)
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        audited = audit(given.root, given.shards, pool)
    found = figures(given, observed, audited)
    given.report.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    for fault in audited.faults[:SHOWN]:
        print(fault, file=sys.stderr)
    return 1 if audited.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
