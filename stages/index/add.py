"""Assign every vector to its inverted list and encode it, about a million a shard.

Reads   the corpora that are added: vectors of the key and row ids; index_train: the template
Writes  lists (n,) int32, codes (n, code size) uint8, ids (n,) int64; row-aligned, ordered by list and then by id, so
        that whoever needs a range of lists reads a slice. Arrays and not FAISS files, because every such file repeats
        the centroids.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.commits import Committed, Whole
from pipeline.errors import InputError
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.index.entries import Codes
from stages.index.faiss_index import before_lists, inverted_file
from stages.index.recipe import IndexRecipe
from stages.index.train import finite, on_gpus, read_template
from stages.index.vectors import Half, Ids, Vectors

Lists = npt.NDArray[np.int32]
EXACT_LISTS = 16_384  # up to as many, comparing with every centroid is faster than asking a graph of them
GRAPH_EFFORT = 128  # centroids that the search of a graph looks at: it agrees with comparing all on 98 % of rows
BLOCK = 8192  # vectors that are encoded at once
MOST_PER_TASK, LEAST_PER_TASK, TASKS = 1_000_000, 50_000, 16


@dataclass(frozen=True)
class IndexAdd(Stage[None]):
    """corpora: their inputs and the ids of their first rows; they follow each other without a gap."""

    recipe: IndexRecipe
    corpora: Sequence[tuple[Input, int]] = ((Input("corpus", Need.WHOLE), 0),)
    template: Input = Input("index_train", Need.WHOLE)
    name, version = "index_add", 2

    @property
    def inputs(self) -> Sequence[Input]:
        return [*(source for source, _ in self.corpora), self.template]

    @property
    def resources(self) -> Resources:
        return Resources(gpus=self.recipe.add_gpus, memory_gib=2)

    def settings(self) -> Mapping[str, Json]:
        first_ids = [first_id for _, first_id in self.corpora]
        return self.recipe.model_dump(include={"vectors_per_task", "key"}) | {"first_ids": first_ids}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        rows = sum(whole[source.key].rows for source, _ in self.corpora)
        each = self.recipe.vectors_per_task or min(MOST_PER_TASK, max(-(-rows // TASKS), LEAST_PER_TASK))
        tasks = [
            {"corpus": source.key, "corpus_shards": names, "first_row": first_row, "first_id": first_id + first_row}
            for source, first_id in self.corpora
            for names, first_row in _grouped(whole[source.key], each)
        ]
        resolved = whole[self.template.key].plan().resolved
        exact = "_HNSW" not in resolved["factory"] or resolved["nlist"] <= EXACT_LISTS or self.recipe.add_gpus > 0
        shards = [Shard(shard_id(number), params) for number, params in enumerate(tasks)]
        return Plan(shards, {"assignment": "exact" if exact else "graph"})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        corpus, names = task.whole(task.params["corpus"]), task.params["corpus_shards"]
        template = read_template(task.whole(self.template.key))
        encoder = Encoder.of(template, exact=task.resolved["assignment"] == "exact")
        _check_row_ids([corpus.read(name) for name in names], task.params["first_row"])
        first, parts = task.params["first_id"], []
        for start, block in Vectors([corpus], self.recipe.key, names).blocks():
            ids = np.arange(first + start, first + start + len(block))
            parts.append((*encoder.encode(block, ids), ids))
        lists, codes, ids = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.argsort(lists, kind="stable")
        out.array("lists", "lists_{stem}.npy", lists[order])
        out.array("codes", "codes_{stem}.npy", codes[order])
        out.array("ids", "ids_{stem}.npy", ids[order])
        return Counts(len(ids), len(ids))


@dataclass(frozen=True)
class Encoder:
    index: Any  # the template
    quantizer: Any  # says which centroid is nearest

    @classmethod
    def of(cls, index: Any, *, exact: bool) -> "Encoder":
        """exact: every centroid is compared with, on GPUs where there are some; else the template's graph is asked."""
        faiss: Any = import_module("faiss")
        ivf = inverted_file(index)
        if not exact:
            faiss.downcast_index(ivf.quantizer).hnsw.efSearch = GRAPH_EFFORT
            return cls(index, ivf.quantizer)
        flat = faiss.IndexFlatIP(ivf.d)
        flat.add(ivf.quantizer.reconstruct_n(0, ivf.nlist))
        return cls(index, on_gpus(flat))

    def encode(self, vectors: Half, ids: Ids) -> tuple[Lists, Codes]:
        """vectors (n, D) and their ids (n,) → list numbers (n,) and codes (n, code size), the bytes that `add` would
        append to the lists.

        (`add_core` is no substitute: on some index types it corrupts the lists without an error.) Raises InputError
        where a value is not finite.
        """
        import faiss

        ivf = inverted_file(self.index)
        wide = np.ascontiguousarray(before_lists(self.index, finite(vectors, ids)))
        lists = np.ascontiguousarray(self.quantizer.search(wide, 1)[1][:, 0])
        codes = np.empty((len(wide), ivf.code_size), np.uint8)
        ivf.encode_vectors(len(wide), faiss.swig_ptr(wide), faiss.swig_ptr(lists), faiss.swig_ptr(codes))
        return lists.astype(np.int32), codes


def _check_row_ids(shards: Sequence[Committed], first: int) -> None:
    """Ids are told from a row's place, and readers find its metadata by the same."""
    for shard in shards:
        end = first + shard.record.rows_out
        if not np.array_equal(shard.table("metadata", ["row_id"])["row_id"], np.arange(first, end)):
            raise InputError(
                f"{shard.folder.root}/{shard.folder.stage} shard {shard.shard}: its row_id column does not count from "
                f"{first} to {end - 1}; make the corpus again"
            )
        first = end


def _grouped(corpus: Whole, vectors_per_task: int) -> Iterator[tuple[list[str], int]]:
    """Consecutive corpus shards, until there are enough vectors, and the first one's row id."""
    names: list[str] = []
    first, end = 0, 0
    for name, summary in corpus.shards.items():
        names.append(name)
        end += summary.rows_out
        if end - first >= vectors_per_task or end == corpus.rows:
            yield names, first
            names, first = [], end
