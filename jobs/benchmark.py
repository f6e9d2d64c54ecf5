#!/usr/bin/env python
"""What frame, stages and model cost, as ratios to a bound or a peer in the same run. Prints tables in Markdown.

frame      scheduling and committing, beside a bare window of tasks (1 minute)
resume     the start of a run that is finished (3 minutes)
recovery   what the loss of a node costs (5 minutes)
scale      the driver's memory and CPU up to 75,000 shards (15 minutes)
ingest     memory and CPU of 1 and 10 million rows of COYO's form, duplicates dropped and kept (9 minutes)
download   fetching and storing pictures beside img2dataset, over http and https (25 minutes)
crawl      the recorded CC3M crawl replayed with 40 ms latency, beside img2dataset (5 minutes)
embed      the embed stage beside its bare model (1 minute)
exact      exact search beside torch.mm (8 minutes)
captions   the index over real captions' vectors (3 minutes, once 15 more to embed them)
index      the index over 1 and 5 million vectors, beside FAISS and autofaiss (an hour)
interleave mining of five-pair samples beside plain products, FAISS and torch.mm (75 minutes)
model      a step of pretraining by part, with retrieval and packed beside without; on a GPU its rate (9 minutes)
decoding   beam search with and without the cache (6 minutes)
captioning pictures to captions with a live index beside generation alone (8 minutes)
flamingo   resampler and gated layers beside open_flamingo's (5 minutes)
training   the trainer's loader, loop, checkpoints and workers, each beside a bound; on a GPU its MFU (6 minutes)
metrics    caption metrics beside pycocoevalcap's (1 minute; REVILM_COCO_ENV: an environment that holds it)
service    the caption service beside its captioner, and a replica killed under load, on the demo's model (5 minutes)
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence

from trials.benchmarks.captioning import captioning
from trials.benchmarks.captions import captions
from trials.benchmarks.crawl import crawl
from trials.benchmarks.decoding import decoding
from trials.benchmarks.download import download
from trials.benchmarks.embedding import embed
from trials.benchmarks.exact import exact
from trials.benchmarks.flamingo import flamingo
from trials.benchmarks.frame import frame
from trials.benchmarks.index import index
from trials.benchmarks.ingest import ingest
from trials.benchmarks.interleave import interleave
from trials.benchmarks.metrics import metrics
from trials.benchmarks.model import model
from trials.benchmarks.recovery import recovery
from trials.benchmarks.scale import resume, scale
from trials.benchmarks.service import service
from trials.benchmarks.training import training

PARTS: dict[str, Callable[[], Iterable[tuple[str, str]]]] = {
    "frame": frame,
    "resume": resume,
    "recovery": recovery,
    "scale": scale,
    "ingest": ingest,
    "download": download,
    "crawl": crawl,
    "embed": embed,
    "exact": exact,
    "captions": captions,
    "index": index,
    "interleave": interleave,
    "model": model,
    "decoding": decoding,
    "captioning": captioning,
    "flamingo": flamingo,
    "training": training,
    "metrics": metrics,
    "service": service,
}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # As a word, because argparse compares an empty list with the choices.
    parser.add_argument("part", nargs="*", choices=[*PARTS, "all"], default="all", help="all of them unless told")
    named = parser.parse_args(argv).part
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    for part in PARTS if "all" in named else named:
        print(f"| {part} | |\n| --- | --- |")
        for what, figure in PARTS[part]():
            print(f"| {what} | {figure} |", flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
