"""The kept pairs, numbered and in even shards: what everything after `filter` reads.

Reads    filter_judge, filter_duplicates where pictures are compared, embed, and download where pictures are copied
Writes   metadata (PAIRS), img_emb and text_emb (float16, row-aligned), in the folders that clip-retrieval and
         embedding-reader read; with `images: copy` also images, a tar of key.jpg, key.txt, key.json in row order
Rows     inputs in recipe order, then pair_id (runs.py); row_id is 0 … N−1 over all shards
Pictures input ≥ 0: in the download tar `shard` of that root of filter.inputs (of the run itself where it names none).
         input −1: in the images of corpus shard `shard`.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.commits import Committed, Whole
from pipeline.errors import InputError
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.schemas import PAIRS
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.storage import open_store
from pipeline.tars import add_member, read_picture
from pipeline.writer import ShardWriter, Task
from stages.filter.inputs import input_key, whole_inputs
from stages.filter.judge import SETTING_OF
from stages.filter.positions import Survivors
from stages.filter.recipe import THIS_RUN, FilterRecipe
from stages.filter.runs import cut, ordered_runs

IN_THIS_CORPUS = -1
PLACE = ("input", "shard", "offset", "bytes")

Vectors = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Corpus(Stage[None]):
    recipe: FilterRecipe

    name: ClassVar[str] = "corpus"
    version: ClassVar[int] = 1

    @property
    def inputs(self) -> Sequence[Input]:
        duplicates = [Input("filter_duplicates", Need.WHOLE)] if self.recipe.compares_pictures else []
        read = ["embed", "download"] if self.recipe.images == "copy" else ["embed"]
        others = [source for stage in read for source in whole_inputs(stage, self.recipe.inputs)]
        return [Input("filter_judge", Need.WHOLE), *duplicates, *others]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=1)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(mode="json", include={"shard_rows", "images"})

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        """Ranges count the rows of a judge shard that are left after duplicates. inputs: the roots that hold the
        pictures, for readers; none: the run's own. That is never named, for a root may be moved."""
        judged = whole["filter_judge"]
        survivors = Survivors.of(judged, whole.get("filter_duplicates"))
        ranges = [(run.shard, *survivors.between(run.shard, run.start, run.stop)) for run in ordered_runs(judged)]
        shards = [
            Shard(shard_id(number), {"first_row_id": number * self.recipe.shard_rows, "ranges": taken})
            for number, taken in enumerate(cut(ranges, self.recipe.shard_rows))
        ]
        if not shards:
            raise _empty(judged, whole.get("filter_duplicates"))
        inputs = [root if root == THIS_RUN else open_store(root).root for root in self.recipe.inputs]
        return Plan(shards, {"inputs": inputs})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        judged = task.whole("filter_judge")
        duplicates = task.whole("filter_duplicates") if self.recipe.compares_pictures else None
        survivors = Survivors.of(judged, duplicates)
        parts = []
        for shard, start, stop in task.params["ranges"]:
            rows = judged.read(shard).table("judged").take(pa.array(survivors.rows(shard)[start:stop]))
            parts.append((rows, *self._vectors(task, rows)))
        pairs, images, texts = zip(*parts, strict=True)
        metadata = _numbered(pa.concat_tables(pairs), task.params["first_row_id"])
        if self.recipe.images == "copy":
            metadata = self._copy_pictures(task, metadata, out.file("images", "{stem}.tar"))
        out.array("img_emb", "img_emb/img_emb_{stem}.npy", np.concatenate(images))
        out.array("text_emb", "text_emb/text_emb_{stem}.npy", np.concatenate(texts))
        out.table("metadata", "metadata/metadata_{stem}.parquet", metadata)
        return Counts(rows_in=metadata.num_rows, rows_out=metadata.num_rows)

    def _vectors(self, task: Task, rows: pa.Table) -> tuple[Vectors, Vectors]:
        """Of rows of one judge shard, and so of one embed shard: their image and text embeddings."""
        embedded = self._read(task, "embed", rows["input"][0].as_py(), rows["shard"][0].as_py())
        wanted = rows["embedded_row"].to_numpy()
        return embedded.array("img_emb")[wanted], embedded.array("text_emb")[wanted]

    def _copy_pictures(self, task: Task, rows: pa.Table, path: Path) -> pa.Table:
        """Writes the tar, and returns the rows with their pictures' new place."""
        placed: list[dict[str, Any]] = []
        with tarfile.open(path, "w") as tar:
            for (number, shard), group in groupby(rows.to_pylist(), key=lambda row: (row["input"], row["shard"])):
                with self._read(task, "download", number, shard).open("images") as pictures:
                    placed += [_copy(row, pictures, tar) | {"shard": task.id} for row in group]
        return pa.Table.from_pylist(placed, schema=PAIRS)

    def _read(self, task: Task, stage: str, number: int, shard: str) -> Committed:
        return task.whole(input_key(stage, self.recipe.inputs, number)).read(shard)


def _numbered(rows: pa.Table, first_row_id: int) -> pa.Table:
    row_ids = np.arange(first_row_id, first_row_id + rows.num_rows, dtype=np.int64)
    return rows.append_column("row_id", pa.array(row_ids)).select(PAIRS.names).cast(PAIRS)


def _copy(row: dict[str, Any], pictures: BinaryIO, tar: tarfile.TarFile) -> dict[str, Any]:
    key, jpeg = row["pair_id"], read_picture(pictures, row["offset"], row["bytes"])
    offset = add_member(tar, f"{key}.jpg", jpeg)
    add_member(tar, f"{key}.txt", row["caption"].encode())
    told = {"key": key} | {name: value for name, value in row.items() if name not in PLACE}
    add_member(tar, f"{key}.json", json.dumps(told, ensure_ascii=False).encode())
    return row | {"input": IN_THIS_CORPUS, "offset": offset}


def _empty(judged: Whole, duplicates: Whole | None) -> InputError:
    """What to say where no pair is left: the commonest reasons, and where their limits are set."""
    where = f"{judged.folder.root}/filter_judge"
    num_judged = sum(summary.rows_in for summary in judged.shards.values())
    if num_judged == 0:
        return InputError(f"{where} was given no pair: see the rejects of ingest, download and embed")
    reasons: Counter[str] = Counter()
    for stage in filter(None, (judged, duplicates)):
        for shard in stage.shards:
            reasons.update(stage.read(shard).record.rejects)
    leading = [f"{reason} {rows:,} ({SETTING_OF[Reason(reason)]})" for reason, rows in reasons.most_common(3)]
    return InputError(
        f"no pair is left for the corpus: of {num_judged:,} judged, {', '.join(leading)} left. Change the settings "
        f"named, or give filter.sources their own; {judged.folder.root}/filter_*/rejects say of every row what was "
        "found."
    )
