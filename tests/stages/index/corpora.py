"""A corpus stage of drawn vectors, and a run that indexes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.commits import Whole
from pipeline.executor import LocalExecutor
from pipeline.recipe import Json
from pipeline.run import Run, RunReport
from pipeline.schemas import PAIRS
from pipeline.stage import Counts, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.index import IndexRecipe, index_stages

Vectors = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Drawn(Stage[None]):
    """Vectors of norm 1 in loose clusters, captions near their images. Every twentieth row has the very vector of the
    row ten before; every second one of these shows the same image too (equal stored bytes). first_row_id: 0 if sound.
    source: of all pairs, and begins their ids.
    """

    rows: int
    width: int = 64
    seed: int = 5
    shards: int = 5
    first_row_id: int = 0
    source: str = "toy"
    name, version = "corpus", 1

    @property
    def inputs(self) -> Sequence[Any]:
        return ()

    def settings(self) -> Mapping[str, Json]:
        return vars(self)

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        bounds = np.linspace(0, self.rows, self.shards + 1).astype(int).tolist()
        parts = zip(bounds, bounds[1:], strict=False)
        return Plan([Shard(shard_id(n), {"first": a, "end": b}) for n, (a, b) in enumerate(parts)], {"inputs": []})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        rows = range(task.params["first"], task.params["end"])
        here = slice(rows.start, rows.stop)
        out.array("img_emb", "img_emb/{stem}.npy", self.images[here])
        out.array("text_emb", "text_emb/{stem}.npy", self.captions[here])
        out.table("metadata", "metadata/{stem}.parquet", pa.Table.from_pylist([*map(self.row, rows)], schema=PAIRS))
        return Counts(len(rows), len(rows))

    @property
    def images(self) -> Vectors:
        rng = np.random.default_rng(self.seed)
        centers = rng.standard_normal((max(self.rows // 60, 1), self.width))
        drawn = centers[rng.integers(len(centers), size=self.rows)] + rng.standard_normal((self.rows, self.width))
        drawn[20::20] = drawn[10::20][: len(drawn[20::20])]
        return unit(drawn)

    @property
    def captions(self) -> Vectors:
        rng = np.random.default_rng(self.seed + 1)
        return unit(self.images + 0.05 * rng.standard_normal((self.rows, self.width)))

    def row(self, number: int) -> dict[str, Any]:
        image = number - 10 if number and number % 40 == 0 else number
        return {
            "row_id": number + self.first_row_id,
            "pair_id": f"{self.source}-{number:010d}",
            "source": self.source,
            "image_id": None,
            "caption": f"the caption of {number}",
            "width": 64,
            "height": 64,
            "clip_score": 0.3,
            "sha256": f"{self.source} {number}",
            "stored_sha256": f"{self.source} {image}",
            "phash": number * 7919,
            "input": 0,
            "shard": "000000",
            "offset": 512,
            "bytes": 10,
        }


@dataclass(frozen=True)
class Model(Stage[None]):
    """Stands where the stage would that made the vectors, and says by which model."""

    model: str = "ViT-B-32"
    name, version = "embed", 1

    def settings(self) -> Mapping[str, Json]:
        return {"model": self.model, "weights": "drawn", "batch_size": 64}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        out.json("model", "{stem}.json", self.model)
        return Counts(0, 0)


def unit(vectors: npt.NDArray[Any]) -> Vectors:
    wide = np.asarray(vectors, np.float64)
    normal: Vectors = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float16)
    return normal


def run_index(root: Path, corpus: Stage[Any], **recipe: Any) -> RunReport:
    return Run(str(root), [corpus, *index_stages(IndexRecipe(**recipe))]).execute(LocalExecutor())


def index(root: Path, corpus: Stage[Any], **recipe: Any) -> str:
    """→ the root, finished."""
    report = run_index(root, corpus, **recipe)
    assert report.exit_code == 0, "\n".join([str(report), *report.failed.values()])
    return str(root)


def finish(root: Path, stages: Sequence[Stage[Any]]) -> str:
    """→ the root, with the stages whole."""
    report = Run(str(root), stages).execute(LocalExecutor())
    assert report.exit_code == 0, report
    return str(root)
