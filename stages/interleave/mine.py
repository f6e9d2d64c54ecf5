"""Supports of every pair, exactly.

Reads   the corpora; interleave_keys; interleave_gate, which says what is cheapest
Writes  supports (SUPPORTS): a row a query, in order
Rule    supports.Rule; the result depends on neither engine, device, nor how the queries are cut
Memory  the queries of a task and a tile; vectors and keys are memory-mapped, on a GPU they stay there if there is room
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.commits import Whole
from pipeline.recipe import Json
from pipeline.schemas import SUPPORTS
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.interleave.corpora import Corpora, InterleaveKeys
from stages.interleave.gate import InterleaveGate
from stages.interleave.pairs import Pairs
from stages.interleave.probe import open_pairs
from stages.interleave.recipe import InterleaveRecipe
from stages.interleave.seen import Seen
from stages.interleave.supports import Engine, Ids, Supports
from stages.neighbors import consecutive


@dataclass(frozen=True)
class Opened:
    pairs: Pairs
    engine: Engine


@dataclass(frozen=True)
class InterleaveMine(Stage[Opened]):
    corpora: Corpora
    recipe: InterleaveRecipe
    name, version, stateful = "interleave_mine", 1, True

    @property
    def inputs(self) -> Sequence[Input]:
        keys, gate = (Input(stage.name, Need.WHOLE) for stage in (InterleaveKeys, InterleaveGate))
        return [*self.corpora.inputs, keys, gate]

    @property
    def resources(self) -> Resources:
        return Resources(gpus=1 if self.recipe.device == "cuda" else 0, memory_gib=2)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(include={"metric", "lo", "hi", "supports", "drop_same_caption", "sources"})

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        shards: list[Shard] = []
        first = 0
        for source in self.corpora.inputs:
            corpus = whole[source.key]
            for names in consecutive(corpus, self.recipe.queries_per_task):
                end = first + sum(corpus.shards[name].rows_out for name in names)
                shards.append(Shard(shard_id(len(shards)), {"first": first, "end": end}))
                first = end
        return Plan(shards, {"corpora": list(self.corpora.roots)})

    def open(self, task: Task) -> Opened:
        from stages.interleave.engines import engine_for

        whole = {source.key: task.whole(source.key) for source in self.inputs}
        pairs = open_pairs(self.corpora, self.recipe, whole)
        return Opened(pairs, engine_for(pairs, self.recipe, Seen.read(whole[InterleaveGate.name]).cheapest))

    def process(self, task: Task, out: ShardWriter, state: Opened) -> Counts:
        ids = np.arange(task.params["first"], task.params["end"])
        ids = ids[state.pairs.wanted[ids]]
        supports = state.engine.mine(state.pairs.queries(ids))
        out.table("supports", "supports_{stem}.parquet", _table(ids, supports))
        starved = int((supports.found < self.recipe.supports).sum())
        return Counts(len(ids), len(ids), {"starved": starved})


def _table(ids: Ids, supports: Supports) -> pa.Table:
    there = supports.rows >= 0
    ends = np.cumsum([0, *supports.found], dtype=np.int32)
    columns = (supports.rows, supports.image_cosines, supports.caption_cosines)
    lists = [pa.ListArray.from_arrays(ends, pa.array(column[there])) for column in columns]
    return pa.table([ids, *lists], schema=SUPPORTS)
