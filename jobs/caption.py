#!/usr/bin/env python
"""Captions for pictures, by a checkpoint and, unless told otherwise, with neighbours from a live index.

python jobs/caption.py runs/demo-train/pretrain PICTURE… --index runs/demo
python jobs/caption.py runs/demo-train/pretrain FOLDER --index runs/other --format html > captions.html
python jobs/caption.py runs/demo-train/pretrain https://…/x.jpg --no-retrieval --format jsonl

Another index is another database, and needs no training. A picture that cannot be read is told with its reason, and
makes the exit code 1."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from pipeline.errors import InputError, reporting_errors

if TYPE_CHECKING:
    from model.evaluation.captioner import Caption


def table(captions: "Iterator[Caption]") -> Iterator[str]:
    for each in captions:
        yield f"{each.picture}\n  {each.caption if each.caption is not None else f'no caption: {each.error}'}"
        for neighbor in each.neighbors:
            yield f"    {neighbor.similarity:.3f}  {neighbor.caption}  ({neighbor.pair['pair_id']})"
        took = ", ".join(f"{what} {1000 * seconds:.0f} ms" for what, seconds in each.seconds.items())
        yield f"    {took}; {each.removed} hits of the same picture removed\n" if took else ""


def jsonl(captions: "Iterator[Caption]") -> Iterator[str]:
    for each in captions:
        told = {
            "picture": each.picture,
            "caption": each.caption,
            "error": each.error or None,
            "neighbors": [
                {"pair_id": n.pair["pair_id"], "caption": n.caption, "similarity": n.similarity} for n in each.neighbors
            ],
            "removed": each.removed,
            "seconds": dict(each.seconds),
        }
        yield json.dumps(told, ensure_ascii=False)


@reporting_errors
def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a checkpoint's folder, or that of a finished stage of jobs/train.py")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="files, folders, globs or urls")
    database = parser.add_mutually_exclusive_group(required=True)
    database.add_argument("--index", metavar="ROOT", help="a run whose index is finished: the database")
    database.add_argument("--no-retrieval", action="store_true", help="show the model no neighbours")
    parser.add_argument("--format", choices=["table", "jsonl", "html"], default="table")
    parser.add_argument("--beams", type=int, default=3, help="1 is greedy (3)")
    parser.add_argument("--max-new-tokens", type=int, default=20, help="of a caption (20)")
    parser.add_argument("--allow", action="append", default=[], metavar="HOST:PORT", help="may be asked though private")
    asked = parser.parse_args(argv)

    from model.evaluation.answerer import Decoding
    from model.evaluation.caption_page import caption_page
    from model.evaluation.captioner import Captioner
    from model.evaluation.given import pictures
    from stages.download import DownloadRecipe

    out, failed = sys.stdout, 0
    with redirect_stdout(sys.stderr):
        decoding = Decoding(beams=asked.beams, max_new_tokens=asked.max_new_tokens)
        captioner = Captioner.open(asked.checkpoint, asked.index, decoding)

        def counted() -> "Iterator[Caption]":
            nonlocal failed
            for each in captioner.captions(pictures(asked.pictures, DownloadRecipe(allow=frozenset(asked.allow)))):
                failed += each.caption is None
                yield each

        try:
            if asked.format == "html":
                print(caption_page(list(counted()), captioner.index), file=out)
            else:
                for line in (table if asked.format == "table" else jsonl)(counted()):
                    print(line, file=out)
        except ValueError as error:  # of generate: a number that is not allowed
            raise InputError(str(error)) from None
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
