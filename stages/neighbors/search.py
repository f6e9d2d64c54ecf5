"""Neighbours of a block of queries: candidates of every database in one order, less what the leakage rules forbid.

Shapes: Q queries, D width, k neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.commits import Whole
from pipeline.schemas import NEIGHBORS
from stages.index import Vectors, best_first
from stages.neighbors.databases import Databases
from stages.neighbors.engines import Engine, Exact, Indexed
from stages.neighbors.keys import COLUMNS, Hashes, Keys, rule_hashes
from stages.neighbors.leakage import first_broken, kept_and_removed
from stages.neighbors.recipe import EngineName, NeighborsRecipe

LOOKED_AT = 2**23  # candidates that are held at once, with five hashes each: 0.6 GB

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Queries:
    """Rows of the training corpus."""

    pair_ids: pa.ChunkedArray  # (Q,)
    images: npt.NDArray[np.float16]  # (Q, D)
    hashes: Hashes  # (rules, Q)

    @classmethod
    def read(cls, corpus: Whole, shards: Sequence[str]) -> "Queries":
        read = [corpus.read(shard) for shard in shards]
        metadata = [shard.table("metadata", COLUMNS) for shard in read]
        return cls(
            pa.concat_tables(metadata)["pair_id"],
            np.concatenate([shard.array("img_emb") for shard in read]),
            np.concatenate([rule_hashes(table) for table in metadata], axis=1),
        )


@dataclass(frozen=True)
class Answers:
    places: Ids  # (Q, k) best first; −1 behind the last
    similarity: npt.NDArray[np.float64]  # (Q, k)
    removed: npt.NDArray[np.int32]  # (Q, rules)

    @property
    def shortfall(self) -> npt.NDArray[np.int32]:
        """(Q,)"""
        missing: npt.NDArray[np.int32] = (self.places < 0).sum(axis=1, dtype=np.int32)
        return missing

    def part(self, queries: slice) -> "Answers":
        return Answers(self.places[queries], self.similarity[queries], self.removed[queries])

    def replace(self, queries: Ids, others: "Answers") -> None:
        self.places[queries], self.similarity[queries] = others.places, others.similarity
        self.removed[queries] = others.removed


@dataclass(frozen=True)
class Search:
    """Everything that a process keeps open."""

    engines: Sequence[Engine]
    starts: Ids  # (databases + 1,) the place of each one's first row
    keys: Keys
    images: Vectors  # of all databases, by place
    recipe: NeighborsRecipe

    @classmethod
    def open(cls, databases: Databases, keys: Keys, recipe: NeighborsRecipe, engine: EngineName) -> "Search":
        opened: list[Engine] = (
            [Exact(database, databases.key, recipe.device) for database in databases.all]
            if engine == "exact"
            else [Indexed(database, recipe.first_count) for database in databases.all]
        )
        starts = np.cumsum([0, *(database.size for database in databases.all)])
        images = Vectors([corpus for database in databases.all for corpus in database.wholes], "image")
        return cls(opened, starts, keys, images, recipe)

    def answer(self, queries: Queries) -> tuple[Answers, Ids]:
        """And which of the queries (numbers) fell short at first and were asked again, to the full depth."""
        everyone = np.arange(len(queries.images))
        answers = self._look(queries, everyone, self.recipe.first_count)
        short = np.flatnonzero(answers.shortfall)
        if short.size:
            answers.replace(short, self._look(queries, short, self.recipe.depth))
        return answers, short

    def table(self, pair_ids: pa.ChunkedArray, answers: Answers) -> pa.Table:
        """Schema NEIGHBORS. pair_ids: of the queries."""
        there = answers.places >= 0
        items = self.keys.told(answers.places[there], answers.similarity[there], self.starts)
        ends = np.cumsum([0, *there.sum(axis=1)], dtype=np.int32)
        lists = pa.ListArray.from_arrays(ends, items, type=NEIGHBORS.field("neighbors").type)
        kinds = list(NEIGHBORS.field("removed").type)
        removed = pa.StructArray.from_arrays([*map(pa.array, answers.removed.T)], fields=kinds)
        return pa.table([pair_ids, lists, removed, answers.shortfall], schema=NEIGHBORS)

    def _look(self, queries: Queries, numbers: Ids, count: int) -> Answers:
        """At the first `count` candidates of some queries."""
        step = max(LOOKED_AT // count, 1)
        parts = [self._judge(queries, numbers[first : first + step], count) for first in range(0, len(numbers), step)]
        return Answers(
            np.concatenate([part.places for part in parts]),
            np.concatenate([part.similarity for part in parts]),
            np.concatenate([part.removed for part in parts]),
        )

    def _judge(self, queries: Queries, numbers: Ids, count: int) -> Answers:
        images = queries.images[numbers]
        places, similarity = self._candidates(images, count)
        marks = first_broken(places, queries.hashes[:, numbers], images, self.keys, self.images)
        kept, removed = kept_and_removed(marks, self.recipe.k)
        first = np.argsort(~kept, axis=1, kind="stable")[:, : self.recipe.k]
        places = np.where(np.take_along_axis(kept, first, axis=1), np.take_along_axis(places, first, axis=1), -1)
        return Answers(places, np.take_along_axis(similarity, first, axis=1), removed)

    def _candidates(self, images: npt.NDArray[np.float16], count: int) -> tuple[Ids, npt.NDArray[np.float64]]:
        """(Q, count): of all databases, by similarity and then by place."""
        found = [engine.candidates(images, count) for engine in self.engines]
        places = [np.where(ids < 0, -1, ids + start) for (ids, _), start in zip(found, self.starts, strict=False)]
        return best_first(np.hstack(places), np.hstack([similarity for _, similarity in found]), count)
