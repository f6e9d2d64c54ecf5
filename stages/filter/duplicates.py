"""Leave out placeholders with all their pairs, and of pairs that show the same picture keep the smallest pair_id.

Reads    filter_judge, and the image embeddings of embed, of placeholders the text embeddings too
Writes   dropped: positions (int64, ascending) of the judged rows to leave out; a shard a hash partition of the pHash
Rejects  placeholder, duplicate; a recipe asks for either or both, and placeholders are gone before copies are compared
Rule     placeholders.py, same_picture.py. Equal stored bytes have an equal pHash, so whatever can be a duplicate of a
         row is in its partition, and memory depends on the size of a partition, not of the corpus.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.commits import Whole
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.filter.inputs import input_key, whole_inputs
from stages.filter.partition import groups, partition, repeated, spans
from stages.filter.placeholders import Placeholder, placeholders
from stages.filter.positions import Integers
from stages.filter.recipe import FilterRecipe
from stages.filter.same_picture import Pictures, kept_copies

COLUMNS = ("pair_id", "source", "image_id", "stored_sha256", "phash", "input", "shard", "embedded_row")

Vectors = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Duplicates(Stage[None]):
    recipe: FilterRecipe
    # On average; a row costs about 200 bytes (and its caption, for placeholders), one whose pHash is shared 1 KiB more.
    partition_rows: int = 1_000_000

    name: ClassVar[str] = "filter_duplicates"
    version: ClassVar[int] = 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input("filter_judge", Need.WHOLE), *whole_inputs("embed", self.recipe.inputs)]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=4)

    def settings(self) -> Mapping[str, Json]:
        if self.recipe.placeholders is None:
            return {"partition_rows": self.partition_rows}
        asked = self.recipe.model_dump(mode="json", include={"placeholders", "duplicates"})
        return {"partition_rows": self.partition_rows, **asked}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        partitions = max(1, -(-whole["filter_judge"].rows // self.partition_rows))
        shards = [Shard(shard_id(number), {"partition": number}) for number in range(partitions)]
        return Plan(shards, {"partitions": partitions})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        columns = (*COLUMNS, "caption") if self.recipe.placeholders else COLUMNS
        judged = task.whole("filter_judge")
        rows = partition(judged, task.params["partition"], task.resolved["partitions"], columns)
        shared = rows.filter(pa.array(repeated(rows["phash"].to_numpy())))
        images = self._vectors(task, "img_emb", shared)
        left = np.ones(shared.num_rows, np.bool_)
        for placeholder in self._placeholders(task, shared, images):
            left[placeholder.rows] = False
            for pair_id in shared["pair_id"].take(pa.array(placeholder.rows)).to_pylist():
                out.reject(pair_id, Reason.PLACEHOLDER, str(placeholder))
        if self.recipe.duplicates == "drop":
            left[left] = _reject_copies(out, shared.filter(pa.array(left)), images if left.all() else images[left])
        out.array("dropped", "{stem}.npy", np.sort(shared["position"].to_numpy()[~left]))
        return Counts(rows_in=rows.num_rows, rows_out=rows.num_rows - int((~left).sum()))

    def _placeholders(self, task: Task, rows: pa.Table, images: Vectors) -> list[Placeholder]:
        if self.recipe.placeholders is None:
            return []

        def texts_of(wanted: Integers) -> Vectors:
            return self._vectors(task, "text_emb", rows.take(pa.array(wanted)))

        return placeholders(rows, images, texts_of, self.recipe.placeholders)

    def _vectors(self, task: Task, name: str, rows: pa.Table) -> Vectors:
        """(rows, width) of img_emb or text_emb, every embed shard opened once."""
        wanted, places = rows["embedded_row"].to_numpy(), groups(rows["input"].cast(pa.string()), rows["shard"])
        order = np.argsort(places, kind="stable")
        vectors = np.empty((0, 0), np.float16)
        for start, stop in spans(places[order]):
            place = order[start:stop]
            number, shard = rows["input"][place[0]].as_py(), rows["shard"][place[0]].as_py()
            embedded = task.whole(input_key("embed", self.recipe.inputs, number)).read(shard).array(name)
            if not vectors.size:
                vectors = np.empty((rows.num_rows, embedded.shape[1]), np.float16)
            vectors[place] = embedded[wanted[place]]
        return vectors


def _reject_copies(out: ShardWriter, rows: pa.Table, images: Vectors) -> npt.NDArray[np.bool_]:
    """(rows,) which of them are kept."""
    copy_of, pair_ids = copies(rows, images), rows["pair_id"].to_pylist()
    for row in np.flatnonzero(copy_of >= 0):
        out.reject(pair_ids[row], Reason.DUPLICATE, f"of {pair_ids[copy_of[row]]}")
    return copy_of < 0


def copies(rows: pa.Table, vectors: Vectors) -> Integers:
    """(rows,) the kept row that each one repeats, −1: it is kept. Rows are sorted by pHash, then pair_id."""
    stored = groups(rows["stored_sha256"])
    image = groups(rows["source"], rows["image_id"])
    copy_of = np.full(rows.num_rows, -1, np.int64)
    for start, stop in spans(rows["phash"].to_numpy()):
        found = kept_copies(Pictures(vectors[start:stop], stored[start:stop], image[start:stop]))
        copy_of[start:stop] = np.where(found < 0, -1, found + start)
    return copy_of
