"""Draw a sample of the corpus and train the index on it, once: k-means of the lists, then the code.

Reads   corpus: all vectors of the key
Writes  template: the trained, empty FAISS index; its checksum is the fingerprint of centroids and codebooks, because
        the file holds nothing else
        sample: the row ids trained on, int64, in order
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.commits import Whole
from pipeline.errors import InputError
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage
from pipeline.writer import ShardWriter, Task
from stages.index.database import ONLY
from stages.index.factory import QUERY_SHARE, choose
from stages.index.faiss_index import empty_index, inverted_file
from stages.index.recipe import IndexRecipe
from stages.index.vectors import Half, Ids, Vectors


@dataclass(frozen=True)
class IndexTrain(Stage[None]):
    recipe: IndexRecipe
    name, version = "index_train", 2

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input("corpus", Need.WHOLE)]

    @property
    def resources(self) -> Resources:
        recipe = self.recipe
        return Resources(recipe.train_cpus, recipe.train_gpus, recipe.train_memory_gib, threads=recipe.train_cpus)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(
            include={"factory", "nlist", "memory_gib", "train_sample", "seed", "queries", "key"}
        )

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
        choice = choose(self.recipe, corpus.rows, Vectors([corpus], self.recipe.key).width)
        return Plan([Shard(ONLY)], resolved=choice.resolved())

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        import faiss

        corpus, resolved = task.whole("corpus"), task.resolved
        vectors = Vectors([corpus], self.recipe.key)
        drawn = np.random.default_rng(self.recipe.seed).choice(corpus.rows, resolved["sample"], replace=False)
        sample = np.sort(drawn)
        index = empty_index(resolved["factory"], vectors.width)
        ivf = inverted_file(index)
        ivf.clustering_index = centroids = on_gpus(faiss.IndexFlatIP(ivf.d))  # noqa: F841 (FAISS keeps a bare pointer)
        index.train(finite(vectors.gather(sample), sample))
        faiss.write_index(index, str(out.file("template", "template_{stem}.faiss")))
        out.array("sample", "sample_{stem}.npy", sample)
        return Counts(len(sample), len(sample))


def read_template(train: Whole) -> Any:
    import faiss

    return faiss.read_index(str(train.read(ONLY).path("template")))


def on_gpus(index: Any) -> Any:
    """Copied to this machine's GPUs, where FAISS was built for them (faiss-gpu) and finds some."""
    import faiss

    return faiss.index_cpu_to_all_gpus(index) if faiss.get_num_gpus() else index


def finite(vectors: Half, ids: Ids) -> npt.NDArray[np.float32]:
    """(n, D), widened. ids: (n,). Raises InputError where a value is not finite."""
    wide = vectors.astype(np.float32)
    if not np.isfinite(wide).all():
        wrong = ids[~np.isfinite(wide).all(axis=1)]
        raise InputError(
            f"index: the vector of id {wrong[0]} holds values that are not finite; such vectors belong to no "
            "inverted list. Make the stages embed and corpus again"
        )
    return wide
