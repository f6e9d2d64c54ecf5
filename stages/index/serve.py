"""Gather what was encoded into the files that are searched: each holds a contiguous range of the inverted lists.

Reads   index_train: the template; index_add: lists, codes and ids; where an index is compacted, its serving shards and
        the rows that are still alive
Writes  serving: an ordinary IVF file, the template with the range's lists filled, each in order of id
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.index.database import read_alive
from stages.index.entries import AddedLists, Codes, Entries, Merged
from stages.index.faiss_index import inverted_file
from stages.index.parts import ranges_of
from stages.index.recipe import IndexRecipe
from stages.index.serving import ServedLists
from stages.index.size import ID_BYTES, shards_for
from stages.index.train import read_template
from stages.index.vectors import Ids

ALL_LISTS = range(2**31)


@dataclass(frozen=True)
class IndexServe(Stage[None]):
    """merged: the serving shards of an index that is compacted, by input. alive: an input, None: every row is."""

    recipe: IndexRecipe
    template: Input = Input("index_train", Need.WHOLE)
    added: Input | None = Input("index_add", Need.WHOLE)
    merged: Sequence[Input] = ()
    alive: Input | None = None
    name, version = "index", 2

    @property
    def inputs(self) -> Sequence[Input]:
        return [source for source in (self.template, self.added, *self.merged, self.alive) if source]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=6)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(include={"serving_shards"})

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        sizes = self._entries(whole, ALL_LISTS).sizes()
        each = inverted_file(read_template(whole[self.template.key])).code_size + ID_BYTES
        wanted = self.recipe.serving_shards or shards_for(int(sizes.sum()) * each)
        if wanted > len(sizes):
            raise RecipeError(
                f"index.serving_shards is {wanted}, but there are {len(sizes)} lists. Nothing was written."
            )
        return Plan([Shard(shard_id(number), params) for number, params in enumerate(_even_ranges(sizes, wanted))])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        import faiss

        first, end, rows = (task.params[name] for name in ("first_list", "end_list", "rows"))
        whole = {source.key: task.whole(source.key) for source in self.inputs}
        index, entries = read_template(whole[self.template.key]), self._entries(whole, range(first, end))
        ivf = inverted_file(index)
        for number in range(first, end):
            _fill(ivf.invlists, number, *entries.entries(number))
        ivf.ntotal = index.ntotal = ivf.invlists.compute_ntotal()
        if index.ntotal != rows:
            raise InputError(
                f"lists {first} to {end - 1} should hold {rows} vectors, found {index.ntotal}; make index_add again"
            )
        faiss.write_index(index, str(out.file("serving", "shards/{stem}.faiss")))
        return Counts(rows, rows)

    def _entries(self, whole: Mapping[str, Whole], lists: range) -> Merged:
        """Of the serving shards that are merged, those that hold some of the lists."""
        nlist = whole[self.template.key].plan().resolved["nlist"]
        parts = [whole[source.key] for source in self.merged]
        sources: list[Entries] = [
            ServedLists.open(part.read(held.shard).path("serving"))
            for part in parts
            for held in ranges_of(part)
            if held.first_list < lists.stop and lists.start < held.end_list
        ]
        if self.added:
            added = whole[self.added.key]
            sources += [AddedLists(added.read(shard), nlist) for shard in added.shards]
        return Merged(sources, read_alive(whole[self.alive.key]) if self.alive else None)


def _even_ranges(sizes: Ids, wanted: int) -> list[dict[str, Json]]:
    """Ranges of lists of about as many vectors each; fewer than wanted where single lists are larger than that."""
    ends = np.cumsum(sizes)
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, wanted) / wanted) + 1
    bounds = np.unique(np.concatenate([[0], cuts, [len(sizes)]])).tolist()
    return [
        {"first_list": first, "end_list": end, "rows": int(sizes[first:end].sum())}
        for first, end in zip(bounds, bounds[1:], strict=False)
    ]


def _fill(lists: Any, number: int, codes: Codes, ids: Ids) -> None:
    """codes (n, code size) and ids (n,) of one list, which is empty: FAISS makes room for exactly these."""
    import faiss

    if len(ids):
        codes, ids = np.ascontiguousarray(codes), np.ascontiguousarray(ids)  # FAISS gets bare pointers into them
        lists.add_entries(number, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(codes))
