"""Of pairs that show the same picture, keep the one with the smallest pair_id.

Reads    filter_judge, and the image embeddings of embed
Writes   dropped: positions (int64, ascending) of the judged rows to leave out; a shard a hash partition of the pHash
Rejects  duplicate
Rule     same_picture.py. Equal stored bytes have an equal pHash, so whatever can be a duplicate of a row is in its
         partition, and memory depends on the size of a partition, not of the corpus.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import Whole
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.schemas import JUDGED
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.filter.inputs import input_key, whole_inputs
from stages.filter.positions import Integers, first_positions
from stages.filter.recipe import FilterRecipe
from stages.filter.same_picture import Pictures, kept_copies

COLUMNS = ["pair_id", "source", "image_id", "stored_sha256", "phash", "input", "shard", "embedded_row"]
MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads hashes that differ in few bits


@dataclass(frozen=True)
class Duplicates(Stage[None]):
    recipe: FilterRecipe
    partition_rows: int = 1_000_000  # on average; a row costs about 200 bytes, one whose pHash is shared 1 KiB more

    name: ClassVar[str] = "filter_duplicates"
    version: ClassVar[int] = 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input("filter_judge", Need.WHOLE), *whole_inputs("embed", self.recipe.inputs)]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=4)

    def settings(self) -> Mapping[str, Json]:
        return {"partition_rows": self.partition_rows}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        partitions = max(1, -(-whole["filter_judge"].rows // self.partition_rows))
        shards = [Shard(shard_id(number), {"partition": number}) for number in range(partitions)]
        return Plan(shards, {"partitions": partitions})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        rows = partition(task.whole("filter_judge"), task.params["partition"], task.resolved["partitions"])
        shared = rows.filter(pa.array(_repeated(rows["phash"].to_numpy())))
        copy_of = copies(shared, self._vectors(task, shared))
        dropped = np.flatnonzero(copy_of >= 0)
        pair_ids = shared["pair_id"].to_pylist()
        for row in dropped:
            out.reject(pair_ids[row], Reason.DUPLICATE, f"of {pair_ids[copy_of[row]]}")
        out.array("dropped", "{stem}.npy", np.sort(shared["position"].to_numpy()[dropped]))
        return Counts(rows_in=rows.num_rows, rows_out=rows.num_rows - len(dropped))

    def _vectors(self, task: Task, rows: pa.Table) -> npt.NDArray[np.float16]:
        """(rows, width) image embeddings, every embed shard opened once."""
        wanted, places = rows["embedded_row"].to_numpy(), _groups(rows["input"].cast(pa.string()), rows["shard"])
        order = np.argsort(places, kind="stable")
        found = []
        for start, stop in _spans(places[order]):
            place = order[start:stop]
            number, shard = rows["input"][place[0]].as_py(), rows["shard"][place[0]].as_py()
            embedded = task.whole(input_key("embed", self.recipe.inputs, number)).read(shard)
            found.append(embedded.array("img_emb")[wanted[place]])
        together = np.concatenate(found) if found else np.empty((0, 0), np.float16)
        vectors = np.empty_like(together)
        vectors[order] = together
        return vectors


def partition(judged: Whole, number: int, partitions: int) -> pa.Table:
    """The judged rows (COLUMNS and position) of one hash partition, by pHash, then pair_id."""
    parts = [_with_positions(JUDGED.empty_table().select(COLUMNS), 0)]
    for shard, first in first_positions(judged).items():
        rows = _with_positions(judged.read(shard).table("judged", COLUMNS), first)
        mine = (rows["phash"].to_numpy() * MIXER >> np.uint64(32)) % np.uint64(partitions) == number
        parts.append(rows.filter(pa.array(mine)))
    return pa.concat_tables(parts).sort_by([("phash", "ascending"), ("pair_id", "ascending")])


def copies(rows: pa.Table, vectors: npt.NDArray[np.float16]) -> Integers:
    """(rows,) the kept row that each one repeats, −1: it is kept. Rows are sorted by pHash, then pair_id."""
    stored = _groups(rows["stored_sha256"])
    image = _groups(rows["source"], rows["image_id"])
    copy_of = np.full(rows.num_rows, -1, np.int64)
    for start, stop in _spans(rows["phash"].to_numpy()):
        found = kept_copies(Pictures(vectors[start:stop], stored[start:stop], image[start:stop]))
        copy_of[start:stop] = np.where(found < 0, -1, found + start)
    return copy_of


def _with_positions(rows: pa.Table, first: int) -> pa.Table:
    return rows.append_column("position", pa.array(np.arange(first, first + rows.num_rows, dtype=np.int64)))


def _groups(*columns: pa.ChunkedArray) -> Integers:
    """(rows,) one number for equal texts in all columns, −1 where a text is null."""
    texts = pc.binary_join_element_wise(*columns, "\0").combine_chunks()
    numbers: Integers = texts.dictionary_encode().indices.cast(pa.int64()).fill_null(-1).to_numpy()
    return numbers


def _spans(values: npt.NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Of sorted values, the first row of each value and the row after its last."""
    return pairwise([*np.flatnonzero(_differs_from_last(values)).tolist(), len(values)])


def _differs_from_last(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    differs = np.ones(len(values), np.bool_)
    differs[1:] = values[1:] != values[:-1]
    return differs


def _repeated(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Of sorted values, those that stand more than once."""
    differs = _differs_from_last(values)
    alone: npt.NDArray[np.bool_] = differs & np.append(differs[1:], [True])
    return ~alone
