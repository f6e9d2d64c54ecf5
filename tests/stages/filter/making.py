"""Committed download and embed stages without a network or a model, and the filter run on them."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.commits import Whole
from pipeline.executor import LocalExecutor
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.run import Base, Run
from pipeline.schemas import DOWNLOADED, EMBEDDED
from pipeline.stage import Counts, Input, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.filter import Duplicates, FilterRecipe, filter_stages

WIDTH = 16
Vector = npt.NDArray[np.float16]


def unit(vector: npt.NDArray[Any]) -> Vector:
    made: Vector = (vector / np.linalg.norm(vector)).astype(np.float16)
    return made


@dataclass(frozen=True)
class Picture:
    """What a download stores of one picture, and what a model makes of it."""

    jpeg: bytes = b"\xff\xd8 a picture"
    phash: int = 7
    vector: Vector = field(default_factory=lambda: unit(np.eye(WIDTH)[0]))


@dataclass(frozen=True)
class Made:
    """One row of a list, with a picture; `reason`: why the download or the model failed, where it did."""

    pair_id: str = "cc3m-0000000000"
    caption: str = "a red star on a table"
    clip_score: float = 0.35
    size: tuple[int, int] = (640, 480)
    url: str | None = "https://pictures.example.org/star.jpg"
    image_id: str | None = None
    nsfw: float | None = None
    watermark: float | None = None
    picture: Picture = Picture()
    text: Vector | None = None  # of the caption; None: the picture's, turned round
    reason: Reason | None = None

    @property
    def source(self) -> str:
        return self.pair_id[:-11]

    @property
    def downloaded(self) -> bool:
        return self.reason in (None, Reason.CORRUPT_IMAGE)

    @property
    def stored_sha256(self) -> str:
        return sha256(self.picture.jpeg).hexdigest()

    def row(self) -> dict[str, Any]:
        """Of DOWNLOADED, less the place of the picture."""
        given = {name: getattr(self, name) for name in ("url", "caption", "source", "image_id", "nsfw", "watermark")}
        if not self.downloaded:
            return given | {"key": self.pair_id, "status": "failed_to_download", "reason": self.reason}
        width, height = self.size
        return given | {
            "key": self.pair_id,
            "status": "success",
            "width": width // 2,
            "height": height // 2,
            "original_width": width,
            "original_height": height,
            "sha256": sha256(b"as fetched " + self.picture.jpeg).hexdigest(),
            "stored_sha256": self.stored_sha256,
            "phash": self.picture.phash,
        }


Shards = Sequence[Sequence[Made]]


@dataclass(frozen=True)
class Lists(Stage[None]):
    """ingest_count as a root may hold it. lists: source → checksum of its list."""

    lists: Mapping[str, str]
    name, version = "ingest_count", 1

    def settings(self) -> Mapping[str, Json]:
        return {}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(n), {"source": source}) for n, source in enumerate(self.lists)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        source = task.params["source"]
        files = [{"name": "list.tsv", "bytes": 1, "sha256": self.lists[source]}]
        out.json(
            "count", "{stem}.json", {"source": source, "file": "list.tsv", "files": files, "rows": 9, "marks": [0]}
        )
        return Counts(9, 9)


@dataclass(frozen=True)
class Downloaded(Stage[None]):
    shards: Shards
    name, version = "download", 1

    def settings(self) -> Mapping[str, Json]:
        return {}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(n), {"number": n}) for n in range(len(self.shards))])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        pairs, rows = self.shards[task.params["number"]], []
        with tarfile.open(out.file("images", "{stem}.tar"), "w") as tar:
            for pair in pairs:
                row = pair.row()
                if pair.downloaded:
                    info = tarfile.TarInfo(f"{pair.pair_id}.jpg")
                    info.size = row["image_bytes"] = len(pair.picture.jpeg)
                    row["image_offset"] = tar.offset + tarfile.BLOCKSIZE
                    tar.addfile(info, io.BytesIO(pair.picture.jpeg))
                else:
                    assert pair.reason is not None
                    out.reject(pair.pair_id, pair.reason)
                rows.append(row)
        out.table("pairs", "{stem}.parquet", pa.Table.from_pylist(rows, schema=DOWNLOADED))
        return Counts(len(rows), sum(pair.downloaded for pair in pairs))


@dataclass(frozen=True)
class Embedded(Stage[None]):
    shards: Shards
    weights: str = "one"
    name, version = "embed", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input("download"),)

    def settings(self) -> Mapping[str, Json]:
        return {"weights": self.weights}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        read = [pair for pair in self.shards[int(task.id)] if pair.downloaded]
        kept = [pair for pair in read if pair.reason is None]
        for pair in read:
            if pair.reason:
                out.reject(pair.pair_id, pair.reason)
        rows = [{"pair_id": pair.pair_id, "caption": pair.caption, "clip_score": pair.clip_score} for pair in kept]
        out.table("pairs", "{stem}.parquet", pa.Table.from_pylist(rows, schema=EMBEDDED))
        vectors = np.array([pair.picture.vector for pair in kept], np.float16).reshape(len(kept), WIDTH)
        out.array("img_emb", "img_emb/img_emb_{stem}.npy", vectors)
        texts = [-pair.picture.vector if pair.text is None else pair.text for pair in kept]
        out.array("text_emb", "text_emb/text_emb_{stem}.npy", np.array(texts, np.float16).reshape(len(kept), WIDTH))
        return Counts(len(read), len(kept))


def crawl(root: Path, shards: Shards, *, weights: str = "one", lists: Mapping[str, str] | None = None) -> str:
    """A root that holds download and embed; → the root."""
    stages: list[Stage[Any]] = [Lists(lists)] if lists else []
    _execute(root, [*stages, Downloaded(shards), Embedded(shards, weights)])
    return str(root)


def filtered(
    root: Path, recipe: FilterRecipe, shards: Shards = (), *, base: Base | None = None, partition_rows: int = 1000
) -> str:
    """A run to its corpus: of made pairs, or of recipe.inputs; → the root."""
    made: list[Stage[Any]] = [] if recipe.inputs else [Downloaded(shards), Embedded(shards)]
    stages = [
        replace(s, partition_rows=partition_rows) if isinstance(s, Duplicates) else s for s in filter_stages(recipe)
    ]
    _execute(root, [*made, *stages], base)
    return str(root)


def _execute(root: Path, stages: list[Stage[Any]], base: Base | None = None) -> None:
    report = Run(str(root), stages, base).execute(LocalExecutor())
    assert report.exit_code == 0, f"{report}\n{json.dumps([*report.failed.values()], indent=1)}"


def random_pairs(random: Random, source: str, rows: int, first: int = 0) -> list[Made]:
    """Of all kinds: pictures shared, nearly the same, flat ones of one pHash; several captions of one image_id."""
    pictures = [_random_picture(random, f"{source} {number}") for number in range(max(1, rows // 2))]
    made = []
    for row in range(first, first + rows):
        picture = random.choice(pictures)
        if random.random() < 0.4:
            picture = replace(picture, jpeg=picture.jpeg + random.randbytes(9), vector=_near(random, picture.vector))
        made.append(
            Made(
                pair_id=f"{source}-{row:010d}",
                caption=random.choice(["a red star on a table", "two dogs in the snow"] * 4 + ["IMG_1234.jpg", "!!!"]),
                clip_score=random.choice([0.1, 0.28, 0.3, 0.32, 0.36, 0.4]),
                size=random.choice([(640, 480)] * 4 + [(480, 640)] * 4 + [(40, 40), (900, 100)]),
                image_id=random.choice([None, None, "7", "8"]),
                picture=picture,
                reason=random.choice([None] * 18 + [Reason.DNS, Reason.CORRUPT_IMAGE]),
            )
        )
    return made


def _random_picture(random: Random, name: str) -> Picture:
    vector = np.array([random.gauss(0, 1) for _ in range(WIDTH)])
    return Picture(name.encode() * random.randint(1, 200), random.choice([0, 0, 0, 1 << 63, 11, 12]), unit(vector))


def _near(random: Random, vector: Vector) -> Vector:
    """Of a cosine on both sides of 0.98."""
    return unit(vector + np.array([random.gauss(0, 0.05) for _ in range(WIDTH)]))


def in_shards(pairs: Sequence[Made], rows: int) -> list[Sequence[Made]]:
    return [pairs[start : start + rows] for start in range(0, len(pairs), rows)]
