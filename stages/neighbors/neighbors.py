"""The neighbours of every training pair, ready to be read beside it.

Reads   corpus: the pairs that ask; the corpora and indexes of the databases; neighbor_keys
Writes  neighbors_<corpus shard> (NEIGHBORS), one a shard of the corpus, row-aligned with its metadata
Rules   the leakage rules (leakage.py): the k nearest that none of them forbids, in order of similarity, then database,
        then row; similarities are float64 inner products of the stored float16 vectors, rounded to float32
Memory  bounded by LOOKED_AT candidates, the working memory of exact search (1 GiB), the queries of a task and k answers
        to each; keys and vectors of the databases are memory-mapped
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.commits import Whole
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.neighbors.databases import ASKING, Databases
from stages.neighbors.engines import modelled_seconds
from stages.neighbors.keys import RULES, Keys, NeighborKeys, consecutive
from stages.neighbors.recipe import EngineName, NeighborsRecipe
from stages.neighbors.search import Answers, Queries, Search

QUERIES, QUERIES_OF_A_GPU = 20_000, 500_000  # of a task, where the recipe leaves it open


@dataclass(frozen=True)
class Neighbors(Stage[Search]):
    recipe: NeighborsRecipe
    databases: Databases
    name, version, stateful = "neighbors", 1, True

    @property
    def inputs(self) -> Sequence[Input]:
        keys = Input(NeighborKeys.name, Need.WHOLE)
        return [self.databases.asking, keys, *self.databases.corpora, *self.databases.indexes]

    @property
    def resources(self) -> Resources:
        on_gpu = self.recipe.device == "cuda" and self.recipe.engine != "index"
        return Resources(gpus=1 if on_gpu else 0, memory_gib=6 if on_gpu else 3)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(include={"k", "over_fetch", "depth", "engine"})

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        corpus, asked = whole[ASKING], self.recipe
        width = corpus.read(next(iter(corpus.shards))).array("img_emb").shape[1]
        seconds = modelled_seconds(self.databases.all, corpus.rows, width, asked.first_count, asked.device)
        engine: EngineName = min(seconds, key=seconds.__getitem__) if asked.engine == "auto" else asked.engine
        fitting = QUERIES_OF_A_GPU if (engine, asked.device) == ("exact", "cuda") else QUERIES
        blocks = consecutive(corpus, asked.queries_per_task or fitting)
        return Plan(
            [Shard(shard_id(number), {"corpus_shards": names}) for number, names in enumerate(blocks)],
            {
                "engine": engine,
                "modelled_seconds": seconds,
                "k": asked.k,
                "depth": asked.depth,
                "key": self.databases.key,
                "corpus": self.databases.corpus,
                "databases": self.databases.described(),
            },
        )

    def open(self, task: Task) -> Search:
        keys = Keys.open(task.whole(NeighborKeys.name))
        return Search.open(self.databases, keys, self.recipe, task.resolved["engine"])

    def process(self, task: Task, out: ShardWriter, state: Search) -> Counts:
        corpus, names = task.whole(ASKING), task.params["corpus_shards"]
        # An index is asked shard by shard: which of several equal codes it returns may depend on the batch.
        together = [names] if task.resolved["engine"] == "exact" else [[name] for name in names]
        totals: Counter[str] = Counter()
        for shards in together:
            queries = Queries.read(corpus, shards)
            answers, asked_again = state.answer(queries)
            totals.update(_totals(answers), queries=len(queries.images), asked_again=len(asked_again))
            first = 0
            for name in shards:
                part = slice(first, first + corpus.shards[name].rows_out)
                table = state.table(queries.pair_ids[part], answers.part(part))
                out.table(f"neighbors_{name}", f"neighbors_{name}_{{stem}}.parquet", table)
                first = part.stop
        return Counts(totals["queries"], totals.pop("queries"), totals)


def _totals(answers: Answers) -> dict[str, int]:
    removed = dict(zip((f"removed_{rule}" for rule in RULES), answers.removed.sum(axis=0).tolist(), strict=True))
    return removed | {"shortfall": int(answers.shortfall.sum())}
