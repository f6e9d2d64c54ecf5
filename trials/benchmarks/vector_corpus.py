"""Corpora of drawn vectors that later stages take for ones that a run has made."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.commits import Whole
from pipeline.recipe import Json
from pipeline.schemas import PAIRS
from pipeline.stage import Counts, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from trials.benchmarks.vectors import BLOCK, captions_like, clip_like

SHARD_ROWS = 131_072  # whole blocks of whatever draws them
GIVEN_ROWS = 10_000  # a shard's, as in a corpus

Half = npt.NDArray[np.float16]


@dataclass(frozen=True)
class DrawnCorpus(Stage[None]):
    """rows: N."""

    rows: int
    name, version = "corpus", 1

    @abstractmethod
    def drawn(self, first: int) -> tuple[Half, Half]:
        """Images and captions of the SHARD_ROWS rows from there on, or of all that are left."""

    def settings(self) -> Mapping[str, Json]:
        return vars(self)

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        firsts = range(0, self.rows, SHARD_ROWS)
        return Plan([Shard(shard_id(n), {"first": first}) for n, first in enumerate(firsts)], {"inputs": []})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        first = task.params["first"]
        images, captions = self.drawn(first)
        out.array("img_emb", "img_emb/img_emb_{stem}.npy", images)
        out.array("text_emb", "text_emb/text_emb_{stem}.npy", captions)
        out.table("metadata", "metadata/metadata_{stem}.parquet", metadata(range(first, first + len(images))))
        return Counts(len(images), len(images))


@dataclass(frozen=True)
class VectorCorpus(DrawnCorpus):
    """What `clip_like` draws, and captions that resemble it."""

    width: int = 512
    seed: int = 1

    def drawn(self, first: int) -> tuple[Half, Half]:
        blocks = clip_like(self.rows, seed=self.seed, width=self.width, first=first)
        images = np.concatenate([*islice(blocks, SHARD_ROWS // BLOCK)])
        return images, captions_like(images, seed=self.seed, first=first)


def metadata(rows: range) -> pa.Table:
    """Every row another picture and another caption."""
    numbers = np.arange(rows.start, rows.stop)
    names = pa.array([f"drawn-{number:010d}" for number in rows])
    constant = {"source": "drawn", "width": 256, "height": 256, "clip_score": 0.3, "input": 0, "shard": "000000"}
    columns = {
        "row_id": numbers,
        "pair_id": names,
        "image_id": pa.nulls(len(rows), pa.string()),
        "url": pa.nulls(len(rows), pa.string()),
        "caption": names,
        "sha256": names,
        "stored_sha256": names,
        "phash": numbers.astype(np.uint64),
        "offset": numbers,
        "bytes": numbers,
    } | {name: pa.array([value] * len(rows)) for name, value in constant.items()}
    return pa.table([pa.array(columns[field.name]).cast(field.type) for field in PAIRS], schema=PAIRS)


@dataclass(frozen=True)
class GivenCorpus(Stage[None]):
    """vectors (N, D): of pictures and of captions alike. captions: said of the pairs again and again; none: numbers."""

    vectors: Half
    captions: Sequence[str] = ()
    name, version = "corpus", 1

    def settings(self) -> Mapping[str, Json]:
        return {"rows": len(self.vectors)}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        firsts = range(0, len(self.vectors), GIVEN_ROWS)
        return Plan([Shard(shard_id(n), {"first": first}) for n, first in enumerate(firsts)], {"inputs": []})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        first = task.params["first"]
        here = self.vectors[first : first + GIVEN_ROWS]
        rows = range(first, first + len(here))
        out.array("img_emb", "img_emb/img_emb_{stem}.npy", here)
        out.array("text_emb", "text_emb/text_emb_{stem}.npy", here)
        table = metadata(rows)
        if self.captions:
            said = [self.captions[row % len(self.captions)] for row in rows]
            place = table.column_names.index("caption")
            table = table.set_column(place, table.schema.field("caption"), pa.array(said))
        out.table("metadata", "metadata/metadata_{stem}.parquet", table)
        return Counts(len(here), len(here))
