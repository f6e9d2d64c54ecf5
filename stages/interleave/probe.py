"""Look at the band before anything is mined: some queries against all pairs.

Reads   the corpora; interleave_keys
Writes  band_sizes (BAND_SIZES): how many pairs lie in the band of each, by every reading of a distance · cosines
        (COSINES): the histogram of their image cosines · steps: how many pairs come to each step of the sweep, by lead
Memory  the queries of a shard, and a tile of the pairs
Shapes: Q queries, N pairs, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.commits import Whole
from pipeline.errors import RecipeError
from pipeline.recipe import Json
from pipeline.schemas import BAND_SIZES, COSINES
from pipeline.stage import Counts, Input, Need, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.interleave.band import LARGEST
from stages.interleave.corpora import Corpora, InterleaveKeys
from stages.interleave.pairs import Candidates, Pairs
from stages.interleave.recipe import InterleaveRecipe
from stages.interleave.seen import Seen
from stages.interleave.supports import Ids, Queries

if TYPE_CHECKING:
    from stages.interleave.sweep import Sweep

SEED = 0  # of the draw: another order of the samples mines nothing anew
QUERIES_OF_A_SHARD = 250
BINS = 400  # of cosines from −1 to 1
TILE_ROWS = 4096  # compared at once: 8 MiB of float64 products


@dataclass(frozen=True)
class InterleaveProbe(Stage["Sweep"]):
    corpora: Corpora
    recipe: InterleaveRecipe
    name, version, stateful = "interleave_probe", 1, True

    @property
    def inputs(self) -> Sequence[Input]:
        return [*self.corpora.inputs, Input(InterleaveKeys.name, Need.WHOLE)]

    def settings(self) -> Mapping[str, Json]:
        band = {"metric", "lo", "hi", "supports", "drop_same_caption"}
        return self.recipe.model_dump(include={*band, "sources", "probe_queries"})

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        pairs = open_pairs(self.corpora, self.recipe, whole)
        pairs.refuse_shared_ids()
        taking_part = int(pairs.wanted.sum())
        if taking_part <= self.recipe.supports:
            raise RecipeError(
                f"interleave.supports is {self.recipe.supports}, and the corpora hold {taking_part:,} pairs of "
                f"interleave.sources, of which a query may be given {taking_part - 1:,}: set interleave.supports to no "
                "more, or name more sources"
            )
        drawn = pairs.drawn(self.recipe.probe_queries, SEED).tolist()
        parts = [drawn[first : first + QUERIES_OF_A_SHARD] for first in range(0, len(drawn), QUERIES_OF_A_SHARD)]
        return Plan([Shard(shard_id(number), {"queries": part}) for number, part in enumerate(parts)])

    def news(self, whole: Whole) -> str:
        return str(Seen.of_probe(whole, self.recipe))

    def open(self, task: Task) -> "Sweep":
        from stages.interleave.engines import open_sweep

        pairs = open_pairs(self.corpora, self.recipe, {source.key: task.whole(source.key) for source in self.inputs})
        return open_sweep(pairs, self.recipe, "image")

    def process(self, task: Task, out: ShardWriter, state: "Sweep") -> Counts:
        from stages.interleave.sweep import LEADS

        ids = np.array(task.params["queries"], np.int64)
        queries = state.pairs.queries(ids)
        sizes, counts = _compared(ids, queries, state.pairs, self.recipe)
        steps, found = {}, np.zeros(len(ids), np.int64)
        for lead in LEADS:
            supports, passed = replace(state, lead=lead).count(queries)
            steps[lead], found = passed.tolist(), supports.found
        columns = {"row_id": ids, **sizes, "found": found.astype(np.int32)}
        out.table("band_sizes", "band_sizes_{stem}.parquet", pa.table(columns, schema=BAND_SIZES))
        edges = np.arange(BINS) * (2 / BINS) - 1
        histogram = pa.table([edges, counts.sum(axis=0), (counts**2).sum(axis=0)], schema=COSINES)
        out.table("cosines", "cosines_{stem}.parquet", histogram)
        out.json("steps", "steps_{stem}.json", steps)
        return Counts(len(ids), len(ids))


def open_pairs(corpora: Corpora, recipe: InterleaveRecipe, whole: Mapping[str, Whole]) -> Pairs:
    return Pairs.open([whole[source.key] for source in corpora.inputs], whole[InterleaveKeys.name], recipe.sources)


def _compared(
    ids: Ids, queries: Queries, pairs: Candidates, recipe: InterleaveRecipe
) -> tuple[dict[str, Ids], npt.NDArray[np.int64]]:
    """Of every query with all pairs but itself, exactly: how many are in the band by each reading (Q,), and how many in
    each bin of cosines (Q, BINS)."""
    bands = {metric: replace(recipe.band, metric=metric) for metric in LARGEST}
    sizes = {metric: np.zeros(len(ids), np.int64) for metric in bands}
    counts, query = np.zeros(len(ids) * BINS, np.int64), np.arange(len(ids))[:, None] * BINS
    images = queries.images.astype(np.float64)
    for tile in pairs.tiles(TILE_ROWS):
        cosines = images @ tile.images.astype(np.float64).T
        others = ids[:, None] != tile.ids
        for metric, band in bands.items():
            sizes[metric] += (band.holds(cosines) & others).sum(axis=1)
        places = query + np.clip((cosines + 1) * (BINS / 2), 0, BINS - 1).astype(np.int64)
        counts += np.bincount(places[others], minlength=len(counts))
    return {str(metric): size for metric, size in sizes.items()}, counts.reshape(len(ids), BINS)
