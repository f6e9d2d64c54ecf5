"""The neighbours that a finished root holds, as a trainer reads them: beside a shard of its corpus."""

from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import Committed, Whole
from pipeline.errors import InputError
from pipeline.recipe import Json
from pipeline.stage import Input, Need
from stages.filter import Corpus
from stages.neighbors.databases import ASKING
from stages.neighbors.keys import Ids, NeighborKeys
from stages.neighbors.neighbors import Neighbors

PLACED = ("database", "row_id", "similarity")  # what `places` reads of a neighbour


class NeighborReader:
    """Raises InputError where the root's neighbours are not whole."""

    def __init__(self, root: str) -> None:
        self._whole = Whole.open(root, Neighbors.name)

    @property
    def k(self) -> int:
        """As many were looked for; a query has fewer where its shortfall says so."""
        return cast(int, self._whole.plan().resolved["k"])

    @property
    def identity(self) -> str:
        return self._whole.identity

    @property
    def corpus_identity(self) -> str:
        """Of the corpus whose rows the tables are aligned with."""
        return self._whole.manifest.inputs[ASKING]

    @cached_property
    def shards(self) -> dict[str, str]:
        """Shard of the corpus → the stage's own shard that holds its table, in the order of the corpus."""
        return {name: shard for shard, params in self._whole.plan().shards for name in params["corpus_shards"]}

    def table(self, corpus_shard: str) -> pa.Table:
        """Schema NEIGHBORS; row i belongs to row i of that shard. Raises InputError where there is no such shard, or
        its file is missing or truncated."""
        return self._holder(corpus_shard).table(f"neighbors_{corpus_shard}")

    def places(self, corpus_shard: str) -> tuple[Ids, npt.NDArray[np.float32]]:
        """(rows, k) each: the neighbours' places through the databases, −1 behind the last, and their similarities.
        Raises as `table` does."""
        columns = [f"neighbors.list.element.{field}" for field in PLACED]
        lists = self._holder(corpus_shard).table(f"neighbors_{corpus_shard}", columns)["neighbors"].combine_chunks()
        database, row_id, similarity = (pc.list_flatten(lists).field(field).to_numpy() for field in PLACED)
        there = np.arange(self.k) < pc.list_value_length(lists).to_numpy()[:, None]
        places, similarities = np.full(there.shape, -1, np.int64), np.zeros(there.shape, np.float32)
        places[there], similarities[there] = self.bases[database] + row_id, similarity
        return places, similarities

    @cached_property
    def bases(self) -> Ids:
        """(databases + 1,) the place of each one's first row, and the number of all."""
        sizes = [sum(part["rows"] for part in database["corpora"]) for database in self._databases]
        bases: Ids = np.cumsum([0, *sizes])
        return bases

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """What a stage of another run reads that looks neighbours up by place: the neighbours, the keys, and the
        databases' corpora in the order of places, by the names that the neighbours' own record has for them."""
        root = self._whole.folder.root
        corpora = (
            Input(Corpus.name, Need.WHOLE, part["root"], f"database {number}, corpus {place}")
            for number, database in enumerate(self._databases)
            for place, part in enumerate(database["corpora"])
        )
        return (Input(Neighbors.name, Need.WHOLE, root), Input(NeighborKeys.name, Need.WHOLE, root), *corpora)

    def refuse_remade(self) -> None:
        """Raises InputError where what the neighbours were found in is no longer that, or is gone."""
        for source in self.inputs[1:]:
            made_of = self._whole.manifest.inputs[source.key]
            found = Whole.open(str(source.root), source.stage).identity
            if found != made_of:
                raise InputError(
                    f"{source.root}/{source.stage} is not what the neighbours in {self._whole.folder.root} were found "
                    f"in: its identity was {made_of[:12]} and is {found[:12]}. Make the neighbours anew."
                )

    @property
    def _databases(self) -> list[Json]:
        return cast(list[Json], self._whole.plan().resolved["databases"])

    def _holder(self, corpus_shard: str) -> Committed:
        if corpus_shard not in self.shards:
            raise InputError(
                f"{self._whole.folder.root}/{Neighbors.name} has no neighbours of corpus shard {corpus_shard!r}: it "
                f"was made for {len(self.shards):,} shards, from {min(self.shards)} to {max(self.shards)}"
            )
        return self._whole.read(self.shards[corpus_shard])

    @cached_property
    def totals(self) -> dict[str, int]:
        """Over all queries: their number, what each rule removed, the shortfall, and how many were asked again."""
        records = [self._whole.read(shard).record for shard in self._whole.shards]
        counted = {name: int(sum(record.metrics[name] for record in records)) for name in records[0].metrics}
        return {"queries": self._whole.rows, **counted}
