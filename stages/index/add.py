"""Assign every vector to its inverted list and encode it, about a million a shard.

Reads   corpus: image vectors and row ids; index_train: the template
Writes  lists (n,) int32, codes (n, code size) uint8, ids (n,) int64; row-aligned, in corpus order. Arrays and not FAISS
        files, because every such file repeats the centroids.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.commits import Committed, Whole
from pipeline.errors import InputError
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.index.factory import inverted_file
from stages.index.recipe import IndexRecipe
from stages.index.train import read_template
from stages.index.vectors import Ids


@dataclass(frozen=True)
class IndexAdd(Stage[None]):
    recipe: IndexRecipe
    name, version = "index_add", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input("corpus", Need.WHOLE), Input("index_train", Need.WHOLE)]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=2)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(include={"vectors_per_task"})

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan(list(_tasks(whole["corpus"], self.recipe.vectors_per_task)))

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        corpus, template = task.whole("corpus"), read_template(task.whole("index_train"))
        first, parts = task.params["first_id"], []
        for name in task.params["corpus_shards"]:
            shard = corpus.read(name)
            ids = _row_ids(shard, first)
            parts.append((*encode(template, shard.array("img_emb")), ids))
            first += len(ids)
        lists, codes, ids = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        out.array("lists", "lists_{stem}.npy", lists)
        out.array("codes", "codes_{stem}.npy", codes)
        out.array("ids", "ids_{stem}.npy", ids)
        return Counts(len(ids), len(ids))


def encode(index: Any, vectors: npt.NDArray[np.float16]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """vectors (n, D) → list numbers (n,) and codes (n, code size), the bytes that `add` would append to the lists.

    `sa_encode` writes both in one row: the list number, little-endian in as few bytes as nlist needs, and the code.
    (`add_core` is no substitute: on some index types it corrupts the lists without an error.)
    """
    wide = vectors.astype(np.float32)
    if not np.isfinite(wide).all():
        raise InputError("img_emb holds values that are not finite; such vectors belong to no inverted list")
    encoded = index.sa_encode(wide)
    prefix = inverted_file(index).coarse_code_size()
    numbers = np.zeros((len(wide), 8), np.uint8)
    numbers[:, :prefix] = encoded[:, :prefix]
    return numbers.view("<i8")[:, 0].astype(np.int32), encoded[:, prefix:]


def _tasks(corpus: Whole, vectors_per_task: int) -> Iterator[Shard]:
    """Consecutive corpus shards, until there are enough vectors."""
    names: list[str] = []
    first, end, made = 0, 0, 0
    for name, summary in corpus.shards.items():
        names.append(name)
        end += summary.rows_out
        if end - first >= vectors_per_task or end == corpus.rows:
            yield Shard(shard_id(made), {"corpus_shards": names, "first_id": first})
            names, first, made = [], end, made + 1


def _row_ids(shard: Committed, first: int) -> Ids:
    ids: Ids = shard.table("metadata", ["row_id"])["row_id"].to_numpy()
    if not np.array_equal(ids, np.arange(first, first + len(shard.array("img_emb")))):
        raise InputError(
            f"{shard.folder.root}/{shard.folder.stage} shard {shard.shard}: its row_id column does not count from "
            f"{first}, one a row of img_emb; make the corpus again"
        )
    return ids
