"""The neighbours that a finished root holds, as a trainer reads them: beside a shard of its corpus."""

from functools import cached_property
from typing import cast

import pyarrow as pa

from pipeline.commits import Whole
from pipeline.errors import InputError
from stages.neighbors.databases import ASKING
from stages.neighbors.neighbors import Neighbors


class NeighborReader:
    """Raises InputError where the root's neighbours are not whole."""

    def __init__(self, root: str) -> None:
        self._whole = Whole.open(root, Neighbors.name)

    @property
    def k(self) -> int:
        """As many were looked for; a query has fewer where its shortfall says so."""
        return cast(int, self._whole.plan().resolved["k"])

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
        if corpus_shard not in self.shards:
            raise InputError(
                f"{self._whole.folder.root}/{Neighbors.name} has no neighbours of corpus shard {corpus_shard!r}: it "
                f"was made for {len(self.shards):,} shards, from {min(self.shards)} to {max(self.shards)}"
            )
        return self._whole.read(self.shards[corpus_shard]).table(f"neighbors_{corpus_shard}")

    @cached_property
    def totals(self) -> dict[str, int]:
        """Over all queries: their number, what each rule removed, the shortfall, and how many were asked again."""
        records = [self._whole.read(shard).record for shard in self._whole.shards]
        counted = {name: int(sum(record.metrics[name] for record in records)) for name in records[0].metrics}
        return {"queries": self._whole.rows, **counted}
