"""Gather what was added into the files that are searched: each holds a contiguous range of the inverted lists.

Reads   index_train: the template; index_add: lists, codes and ids
Writes  serving: an ordinary IVF file, the template with the range's lists filled, each in order of row id
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.index.factory import inverted_file
from stages.index.lists import list_sizes
from stages.index.recipe import IndexRecipe
from stages.index.train import read_template
from stages.index.vectors import Ids

VECTORS_PER_SERVING_SHARD = 32_000_000  # 2.3 GB at 72 bytes a vector


@dataclass(frozen=True)
class IndexServe(Stage[None]):
    recipe: IndexRecipe
    name, version = "index", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input("index_train", Need.WHOLE), Input("index_add", Need.WHOLE)]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=4)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(include={"serving_shards"})

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        nlist, added = whole["index_train"].plan().resolved["nlist"], whole["index_add"]
        wanted = self.recipe.serving_shards or -(-added.rows // VECTORS_PER_SERVING_SHARD)
        if wanted > nlist:
            raise RecipeError(f"index.serving_shards is {wanted}, but there are {nlist} lists. Nothing was written.")
        ranges = _even_ranges(list_sizes(added, nlist), wanted)
        return Plan([Shard(shard_id(number), params) for number, params in enumerate(ranges)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        import faiss

        first, end = task.params["first_list"], task.params["end_list"]
        index, added = read_template(task.whole("index_train")), task.whole("index_add")
        lists, codes, ids = _in_range(added, first, end)
        _check(ids, task.params["rows"], first, end)
        _fill(index, lists, codes, ids)
        faiss.write_index(index, str(out.file("serving", "shards/{stem}.faiss")))
        return Counts(len(ids), len(ids))


def _even_ranges(sizes: Ids, wanted: int) -> list[dict[str, Json]]:
    """Ranges of lists of about as many vectors each; fewer than wanted where single lists are larger than that."""
    ends = np.cumsum(sizes)
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, wanted) / wanted) + 1
    bounds = np.unique(np.concatenate([[0], cuts, [len(sizes)]])).tolist()
    return [
        {"first_list": first, "end_list": end, "rows": int(sizes[first:end].sum())}
        for first, end in zip(bounds, bounds[1:], strict=False)
    ]


def _in_range(added: Whole, first: int, end: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8], Ids]:
    """What belongs to the lists first…end − 1, by list and then by id."""
    parts = []
    for name in added.shards:
        shard = added.read(name)
        lists = shard.array("lists")
        here = np.flatnonzero((first <= lists) & (lists < end))
        parts.append([lists[here], shard.array("codes")[here], shard.array("ids")[here]])
    lists, codes, ids = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.lexsort((ids, lists))
    return lists[order], codes[order], ids[order]


def _check(ids: Ids, rows: int, first: int, end: int) -> None:
    if len(ids) != rows or len(np.unique(ids)) != rows:
        raise InputError(
            f"lists {first} to {end - 1} should hold {rows} vectors, found {len(ids)} "
            f"with {len(np.unique(ids))} row ids; make index_add again"
        )


def _fill(index: Any, lists: npt.NDArray[np.int32], codes: npt.NDArray[np.uint8], ids: Ids) -> None:
    import faiss

    ivf = inverted_file(index)
    bounds = np.searchsorted(lists, np.arange(ivf.nlist + 1))
    for number in np.flatnonzero(np.diff(bounds)):
        here = slice(bounds[number], bounds[number + 1])
        # FAISS gets bare pointers, into arrays that outlive the call.
        first_id, first_code = faiss.swig_ptr(ids[here]), faiss.swig_ptr(codes[here])
        ivf.invlists.add_entries(int(number), int(here.stop - here.start), first_id, first_code)
    ivf.ntotal = index.ntotal = len(ids)
