#!/usr/bin/env python
"""Captions and search over HTTP, by a checkpoint and, unless told otherwise, with neighbours from a live index.

python jobs/serve.py runs/demo-train/pretrain --index runs/demo
python jobs/serve.py runs/demo-train/pretrain --index runs/other --port 8001 --replicas 2
python jobs/serve.py runs/demo-train/pretrain --no-retrieval

Runs until SIGINT or SIGTERM. The page at / takes pictures; docs/serving.md says what programs may ask."""

import argparse
import asyncio
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from model.serving.limits import PER_REPLICA, Limits
from pipeline.errors import reporting_errors

HOW = """{address}/ answers, with {about.checkpoint} on {about.device} and {index}.
  curl --data-binary @picture.jpg '{address}/caption?beams=3'
  curl --data-binary @picture.jpg '{address}/search?k=5'
  curl '{address}/search?text=two+red+stars&k=5'
Ctrl-C ends it."""

CPUS = "its share of this machine's; on a cluster 1"
Number = TypeVar("Number", int, float)


def positive(kind: Callable[[str], Number]) -> Callable[[str], Number]:
    def number(text: str) -> Number:
        if not 0 < kind(text) < math.inf:
            raise ValueError(text)
        return kind(text)

    return number


@reporting_errors
def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a checkpoint's folder, or that of a finished stage of jobs/train.py")
    database = parser.add_mutually_exclusive_group(required=True)
    database.add_argument("--index", metavar="ROOT", help="a run whose index is finished: the database")
    database.add_argument("--no-retrieval", action="store_true", help="show the model no neighbours; no search")
    parser.add_argument(
        "--other-encoder", action="store_true", help="take an index of keys the model did not learn with"
    )
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any that is free (8000)")
    parser.add_argument("--replicas", type=positive(int), default=1, metavar="N", help="processes with the model (1)")
    parser.add_argument("--cpus", type=positive(float), metavar="N", help=f"of each replica ({CPUS})")
    parser.add_argument(
        "--requests",
        type=positive(int),
        default=PER_REPLICA,
        metavar="N",
        help=f"at once of each replica, those that wait included ({PER_REPLICA})",
    )
    parser.add_argument("--deadline", type=positive(float), default=30.0, metavar="S", help="of a request (30)")
    parser.add_argument("--max-body-mb", type=positive(float), default=20.0, metavar="MB", help="of a picture (20)")
    asked = parser.parse_args(argv)

    from model.serving.app import application
    from model.serving.ray_serve import Deployment, replicas_of
    from model.serving.server import address, listening, run

    limits = Limits(
        requests=asked.requests * asked.replicas, deadline_s=asked.deadline, body_bytes=int(asked.max_body_mb * 1e6)
    )
    with listening(asked.host, asked.port) as listener:
        deployment = Deployment(
            name=f"revilm-{os.uname().nodename}-{listener.getsockname()[1]}",
            checkpoint=asked.checkpoint,
            index=asked.index,
            replicas=asked.replicas,
            cpus=asked.cpus,
            requests=limits.requests,
            other_encoder=asked.other_encoder,
        )
        with replicas_of(deployment) as replicas:
            about = asyncio.run(replicas.ask("about"))
            index = f"{about.pairs:,} pairs of {about.index}" if about.index else "no index"
            print(HOW.format(address=address(listener), about=about, index=index), flush=True)
            run(application(replicas.ask, about, limits), listener)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
