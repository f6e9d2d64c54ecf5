#!/usr/bin/env python
"""Ask a finished index for the pairs whose pictures are nearest to a text or to a picture.

python jobs/search.py ROOT --text "a red ball on a table"
python jobs/search.py ROOT --image FILE --k 10 --save FOLDER
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import reporting_errors
from stages.index import QueryEncoder, Retriever


def search(asked: argparse.Namespace) -> None:
    retriever = Retriever(asked.root)
    encoder = QueryEncoder.of(retriever.database)
    query = encoder.pictures([asked.image]) if asked.image else encoder.texts([asked.text])
    ids, similarity = retriever.search(query, asked.k)
    for rank, (pair, cosine) in enumerate(zip(retriever.pairs(ids[ids >= 0]), similarity[0], strict=False), start=1):
        print(f"{rank:3}  {cosine:.4f}  {pair['caption']}")
        print(f"             {pair['source']}  {pair['pair_id']}  {pair['url'] or '(a local picture)'}")
        print(f"             {retriever.tar_of(pair)}: {pair['bytes']} bytes at {pair['offset']}")
        if asked.save:
            asked.save.mkdir(parents=True, exist_ok=True)
            (asked.save / f"{rank:03}-{pair['pair_id']}.jpg").write_bytes(retriever.picture(pair))


@reporting_errors
def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="a run whose index is finished")
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("--text", help="what the pictures should show")
    query.add_argument("--image", type=Path, help="a picture that they should be like")
    parser.add_argument("--k", type=int, choices=range(1, 1001), metavar="1…1000", default=5, help="how many (5)")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the found JPEGs here, by rank and pair id")
    search(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
