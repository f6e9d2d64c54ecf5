"""What an index answers to queries, one pair after the other: for a person, or as records for a program."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import RecipeError
from pipeline.recipe import Json
from stages.index.query_file import Queries
from stages.index.retriever import Retriever
from stages.index.vectors import Ids


@dataclass(frozen=True)
class Answer:
    number: int  # of its query among all, from 0
    query: str | int  # what the query is called
    rank: int  # from 1
    similarity: float  # cosine
    pair: Mapping[str, Any]  # a row of PAIRS
    tar: str  # path or url of the tar that holds the picture

    def record(self) -> dict[str, Json]:
        pair = self.pair
        return {
            "query": self.query,
            "rank": self.rank,
            "similarity": self.similarity,
            **{name: pair[name] for name in ("row_id", "pair_id", "caption", "source", "url")},
            "picture": {"tar": self.tar, "offset": pair["offset"], "bytes": pair["bytes"]},
        }

    def __str__(self) -> str:
        pair = self.pair
        return (
            f"{self.rank:3}  {self.similarity:.4f}  {pair['caption']}\n"
            f"             {pair['source']}  {pair['pair_id']}  {pair['url'] or '(a local picture)'}\n"
            f"             {self.tar}: {pair['bytes']} bytes at {pair['offset']}"
        )


def answers(retriever: Retriever, asked: Iterable[Queries], k: int) -> Iterator[Answer]:
    """Query by query, best first; fewer than k where the probed lists hold fewer. A block of queries is searched at
    once. Raises RecipeError where k is more than the index holds."""
    if k > retriever.index.rows:
        raise RecipeError(f"k is {k}, and the index holds {retriever.index.rows:,} pairs: ask for no more than these")
    first = 0
    for block in asked:
        ids, similarity = retriever.search(block.vectors, k)
        found = _described(retriever, np.unique(ids[ids >= 0]))
        for row, (name, some_ids, some) in enumerate(zip(block.names, ids, similarity, strict=True)):
            for rank, (row_id, cosine) in enumerate(zip(some_ids[some_ids >= 0], some, strict=False), start=1):
                yield Answer(first + row, name, rank, float(cosine), *found[int(row_id)])
        first += len(ids)


def _described(retriever: Retriever, ids: Ids) -> dict[int, tuple[dict[str, Any], str]]:
    """By id, in whose order each shard of metadata is read once: the pair, and the tar that holds its picture."""
    pairs = dict(zip(ids.tolist(), retriever.pairs(ids), strict=True))
    tars: dict[tuple[Any, ...], str] = {}
    for pair in pairs.values():
        place = (pair["corpus"], pair["input"], pair["shard"])
        tars[place] = tars.get(place) or retriever.tar_of(pair)  # on an object store a request each
    return {row_id: (pair, tars[pair["corpus"], pair["input"], pair["shard"]]) for row_id, pair in pairs.items()}
