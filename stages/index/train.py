"""Draw a sample of the corpus and train the index on it.

Reads   corpus: all image vectors
Writes  template: the trained, empty FAISS index; its checksum is the fingerprint of centroids and codebooks, because
        the file holds nothing else
        sample, queries: the row ids trained on, and those kept out for measuring recall; both int64, in order
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.commits import Whole
from pipeline.errors import InputError
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.index.factory import QUERY_SHARE, choose, empty_index
from stages.index.recipe import IndexRecipe
from stages.index.vectors import Ids, Vectors

ONLY = shard_id(0)


@dataclass(frozen=True)
class IndexTrain(Stage[None]):
    recipe: IndexRecipe
    name, version = "index_train", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input("corpus", Need.WHOLE)]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=4)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(include={"factory", "nlist", "train_sample", "seed", "queries"})

    def conditions(self) -> Mapping[str, Json]:
        import faiss

        return {"faiss": faiss.__version__}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        corpus = whole["corpus"]
        if corpus.rows < QUERY_SHARE:
            raise InputError(
                f"index: the corpus in {corpus.folder.root} has {corpus.rows} pairs, and an index whose recall can be "
                f"measured needs {QUERY_SHARE}. Add sources, or loosen filter. Nothing was written."
            )
        choice = choose(self.recipe, corpus.rows, Vectors(corpus, "img_emb").width)
        return Plan([Shard(ONLY)], resolved=choice.resolved())

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        import faiss

        corpus, resolved = task.whole("corpus"), task.resolved
        vectors = Vectors(corpus, "img_emb")
        queries, sample = split_rows(corpus.rows, resolved["queries"], resolved["sample"], self.recipe.seed)
        index = empty_index(resolved["factory"], vectors.width)
        index.train(vectors.gather(sample).astype(np.float32))
        faiss.write_index(index, str(out.file("template", "template_{stem}.faiss")))
        out.array("sample", "sample_{stem}.npy", sample)
        out.array("queries", "queries_{stem}.npy", queries)
        return Counts(len(sample), len(sample))


def split_rows(rows: int, queries: int, sample: int, seed: int) -> tuple[Ids, Ids]:
    """Row ids of the held-out queries and of the training sample: drawn without replacement, so disjoint."""
    drawn = np.random.default_rng(seed).choice(rows, queries + sample, replace=False)
    return np.sort(drawn[:queries]), np.sort(drawn[queries:])


def read_template(train: Whole) -> Any:
    import faiss

    return faiss.read_index(str(train.read(ONLY).path("template")))
