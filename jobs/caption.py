#!/usr/bin/env python
"""Captions for pictures, by a checkpoint and, unless told otherwise, with neighbours from a live index.

python jobs/caption.py runs/demo-train/pretrain PICTURE… --index runs/demo
python jobs/caption.py runs/demo-train/pretrain FOLDER --index runs/other --format html > captions.html
python jobs/caption.py runs/demo-train/pretrain https://…/x.jpg --no-retrieval --format jsonl
python jobs/caption.py runs/demo-train/pretrain pictures.parquet --index runs/demo --out captions.parquet
python jobs/caption.py runs/demo-train/pretrain FOLDER --index runs/demo --save runs/captions

Another index is another database, and needs no training. A picture that cannot be read is told with its reason, and
makes the exit code 1. With --save any number of pictures is captioned on Ray, shard by shard: the same command goes on
after a crash, and pictures without a caption are rejects of that root."""

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pipeline.errors import RecipeError, reporting_errors
from pipeline.progress import show_progress
from pipeline.recipe import dump_recipe
from pipeline.run import Run, executor_for

if TYPE_CHECKING:
    from model.evaluation.caption_run import CaptionRun
    from model.evaluation.captioner import Caption

EVERY_S = 10.0  # a word of how far it is
OF_THE_RUN = ("batch_size", "per_shard", "cpus", "gpus", "workers")

log = logging.getLogger("pipeline.captions")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a checkpoint's folder, or that of a finished stage of jobs/train.py")
    parser.add_argument(
        "pictures",
        nargs="+",
        metavar="PICTURE",
        help="files, folders, globs, urls, or parquets with a column `path`, `url` or `jpeg`",
    )
    database = parser.add_mutually_exclusive_group(required=True)
    database.add_argument("--index", metavar="ROOT", help="a run whose index is finished: the database")
    database.add_argument("--no-retrieval", action="store_true", help="show the model no neighbours")
    out = parser.add_mutually_exclusive_group()
    out.add_argument("--format", choices=["table", "jsonl", "html"], default="table")
    out.add_argument("--out", type=Path, metavar="FILE", help="write a parquet instead (schema captions)")
    out.add_argument("--save", metavar="ROOT", help="a run of its own, of any number of pictures")
    parser.add_argument(
        "--neighbors", type=int, metavar="K", help="of a picture (as many as the model learned to read)"
    )
    parser.add_argument("--other-encoder", action="store_true", help="take an index with other keys than in training")
    parser.add_argument("--beams", type=int, default=3, help="1 is greedy (3)")
    parser.add_argument("--max-new-tokens", type=int, default=20, help="of a caption (20)")
    parser.add_argument("--allow", action="append", default=[], metavar="HOST:PORT", help="may be asked though private")
    run = parser.add_argument_group("with --save")
    run.add_argument("--engine", choices=["ray", "local"], default="ray")
    run.add_argument("--batch-size", type=int, help="pictures that are captioned together (16)")
    run.add_argument("--per-shard", type=int, help="pictures of a shard (256)")
    run.add_argument("--cpus", type=int, help="threads of a worker (1)")
    run.add_argument("--gpus", type=float, help="of a worker (one where this machine has one)")
    run.add_argument("--workers", type=int, help="as many as the cluster holds")
    return parser


def run_of(asked: argparse.Namespace) -> "CaptionRun":
    from pydantic import ValidationError

    from model.evaluation.caption_run import CaptionRun

    names = ("checkpoint", "index", "pictures", "neighbors", "other_encoder", "beams", "max_new_tokens", "allow")
    said = {name: getattr(asked, name) for name in (*names, *OF_THE_RUN) if getattr(asked, name) is not None}
    try:
        return CaptionRun.model_validate({"index": None, **said})
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc']))} is {each['input']!r}: {each['msg']}" for each in error.errors()]
        raise RecipeError("\n".join(faults)) from None


def save(run: "CaptionRun", asked: argparse.Namespace) -> int:
    from model.evaluation.caption_run import caption_stages

    show_progress()
    made = Run(asked.save, caption_stages(run, asked.save), recipe=dump_recipe(run), recipe_name="captions.yaml")
    report = made.execute(executor_for(asked.engine))
    print(report, end="\n" if report.exit_code else "")
    return report.exit_code


def show(run: "CaptionRun", asked: argparse.Namespace, out: TextIO) -> int:
    from model.evaluation.caption_page import caption_page
    from model.evaluation.caption_rows import json_lines, lines, write_parquet
    from model.evaluation.given import check, pictures

    check(run.pictures)
    captioner = run.captioner()
    told = Told()
    captions = told.all_of(captioner.captions(pictures(run.pictures, run.fetch)))
    if asked.out:
        write_parquet(asked.out, captions)
    elif asked.format == "html":
        print(caption_page(list(captions), captioner.index), file=out)
    else:
        for line in (lines if asked.format == "table" else json_lines)(captions):
            print(line, file=out, flush=True)
    return 1 if told.failed else 0


class Told:
    """How far it is, on stderr, and how many pictures have no caption."""

    def __init__(self) -> None:
        self.failed = 0

    def all_of(self, captions: "Iterator[Caption]") -> "Iterator[Caption]":
        began = said = time.monotonic()
        for number, each in enumerate(captions, 1):
            self.failed += each.caption is None
            now = time.monotonic()
            if now - said > EVERY_S:
                said = now
                log.info("%s pictures, %.1f/s", f"{number:,}", number / (now - began))
            yield each


@reporting_errors
def main(argv: Sequence[str]) -> int:
    asked = parser().parse_args(argv)
    run = run_of(asked)
    if asked.save:
        return save(run, asked)
    if asked.out and (asked.out.suffix != ".parquet" or not asked.out.parent.is_dir()):
        raise RecipeError(f"--out is {asked.out}; allowed is a name that ends in .parquet, in a folder that is there")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pipeline").setLevel(logging.INFO)
    out = sys.stdout
    with redirect_stdout(sys.stderr):  # libraries may print
        return show(run, asked, out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
