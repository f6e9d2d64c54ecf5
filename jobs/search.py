#!/usr/bin/env python
"""Ask a finished index for the pairs that are nearest to texts, to a picture or to vectors.

python jobs/search.py ROOT --text "a red ball on a table"
python jobs/search.py ROOT --image FILE --k 10 --save FOLDER
python jobs/search.py ROOT --vectors FILE.parquet --k 100 --format jsonl > answers.jsonl

Nearest means: by the pairs' pictures; where the index was built with `index.key: text`, by their captions, and with
`mixed` by the two together. A text finds captions then, and the question is put the same way.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path

from pipeline.errors import reporting_errors
from stages.index import QueryEncoder, Retriever
from stages.index.answers import Answer, answers
from stages.index.query_file import Queries, read_queries
from stages.index.serving import Owners
from stages.index.vectors import Direction


def search(asked: argparse.Namespace) -> None:
    several = bool(asked.vectors) or len(asked.text or []) > 1
    out = sys.stdout
    with redirect_stdout(sys.stderr), owners_of(asked) as owners:  # Ray tells there of a process that dies
        direction: Direction = "text" if asked.text else "image"
        retriever = Retriever(asked.root, direction=direction, nprobe=asked.nprobe, depth=asked.depth, owners=owners)
        for answer in answers(retriever, queries(asked, retriever), asked.k):
            if asked.format == "jsonl":
                print(json.dumps(answer.record(), ensure_ascii=False), file=out)
            else:
                print(f"{answer.query}\n{answer}" if several and answer.rank == 1 else answer, file=out)
            if asked.save:
                save(asked.save / f"{answer.number:06}" if several else asked.save, answer, retriever)


@contextmanager
def owners_of(asked: argparse.Namespace) -> Iterator[Owners | None]:
    """None: this process owns all of the index."""
    if not asked.owners:
        yield None
        return
    from stages.index.fleet import Fleet

    with closing(Fleet(asked.root, num_owners=asked.owners)) as owners:
        yield owners


def queries(asked: argparse.Namespace, retriever: Retriever) -> Iterator[Queries]:
    if asked.vectors:
        yield from read_queries(asked.vectors, retriever.width)
        return
    encoder = QueryEncoder.of(retriever.database)
    if asked.image:
        yield Queries([str(asked.image)], encoder.pictures([asked.image]))
    else:
        yield Queries(asked.text, encoder.texts(asked.text))


def save(folder: Path, answer: Answer, retriever: Retriever) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{answer.rank:03}-{answer.pair['pair_id']}.jpg").write_bytes(retriever.picture(answer.pair))


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


@reporting_errors
def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="a run whose index is finished")
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("--text", action="append", help="what is looked for; may be given several times")
    query.add_argument("--image", type=Path, help="a picture that they should be like")
    query.add_argument(
        "--vectors",
        type=Path,
        metavar="FILE",
        help="vectors of norm 1 by the corpus' own model: .npy, or .parquet with a column `vector` or `embedding` (and "
        "`id`, which the answers repeat)",
    )
    parser.add_argument("--k", type=positive, metavar="N", default=5, help="how many for each query (5)")
    parser.add_argument("--format", choices=["table", "jsonl"], default="table", help="for people, or an object a pair")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FOLDER",
        help="write the found JPEGs here, by rank and pair id; those of several queries each to a folder of its number",
    )
    parser.add_argument("--nprobe", type=positive, metavar="N", help="lists looked into (as the build tuned it)")
    parser.add_argument("--depth", type=positive, metavar="N", help="candidates ranked exactly (as the build tuned it)")
    parser.add_argument(
        "--owners", type=positive, metavar="N", help="so many Ray actors share the index (else it is in this process)"
    )
    search(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
