"""Roots with real pictures, and with captions of all kinds, for the report to read."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from pipeline.commits import MANIFEST, STATS, StageFolder
from pipeline.executor import LocalExecutor
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.run import Base, Run
from pipeline.stage import Counts, Stage
from pipeline.writer import ShardWriter, Task
from stages.filter import FilterRecipe, filter_stages
from stages.index import IndexRecipe, index_stages
from tests.stages.filter.making import WIDTH, Downloaded, Embedded, Made, Picture, in_shards, unit

HOSTILE = (
    "\" onload=\"alert(0)\"></p></figure><script>alert(1)</script><img src=x onerror='alert(2)'>'&lt;\u202e<!-- <style>"
)
INDEX = IndexRecipe(min_recall=None)


@dataclass(frozen=True)
class Encoder(Stage[None]):
    """Of the trained one, what the report reads."""

    name, version = "encoder", 1

    def settings(self) -> Mapping[str, Json]:
        return {}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        recall = {"recall@10": 0.75, "recall@5": 0.5}
        out.json("report", "{stem}.json", {"image_to_text": recall, "auc": 0.875, "losses": [[0, 5.0]]})
        return Counts(0, 0)


def make_pairs(rows: int = 60, seed: int = 3) -> list[Made]:
    """Of two sources, mixed, most of them good; some pictures twice; some urls and captions as bad as can be."""
    random = Random(seed)
    pictures = [_picture(random) for _ in range(rows * 2 // 3)]
    return [_pair(random, row, pictures) for row in range(rows)]


def _pair(random: Random, row: int, pictures: Sequence[Picture]) -> Made:
    captions = ["a red star on a table", "two dogs in the snow", HOSTILE, "IMG_1234.jpg", "!!!"]
    return Made(
        pair_id=f"{random.choice(['cc3m', 'a-b_2'])}-{row:010d}",
        caption=random.choices(captions, [8, 8, 2, 1, 1])[0],
        clip_score=random.uniform(0.2, 0.6),
        size=random.choice([(640, 480)] * 8 + [(40, 40), (900, 100)]),
        url=random.choice(["https://pictures.example.org/star.jpg", f"https://x.example/{HOSTILE}"]),
        picture=random.choice(pictures),
        reason=random.choice([None] * 8 + [Reason.DNS, Reason.CORRUPT_IMAGE]),
    )


def _picture(random: Random) -> Picture:
    colour = tuple(random.randrange(256) for _ in range(3))
    jpeg = io.BytesIO()
    Image.new("RGB", (320, 240), colour).save(jpeg, "JPEG")
    vector = np.array([random.gauss(0, 1) for _ in range(WIDTH)])
    return Picture(jpeg.getvalue(), random.getrandbits(63), unit(vector))


def run_all(root: Path, pairs: Sequence[Made], recipe: FilterRecipe, *, base: Base | None = None) -> str:
    """Every stage that the report knows but ingest's, whole; → the root."""
    shards = in_shards(pairs, 20)
    stages: list[Stage[Any]] = [Encoder(), Downloaded(shards), Embedded(shards)]
    stages += [*filter_stages(recipe), *index_stages(INDEX)]
    report = Run(str(root), stages, base).execute(LocalExecutor())
    assert report.exit_code == 0, str(report)
    return str(root)


def take_back(root: str, stage: str, shard: str) -> None:
    """As if the shard were still being made."""
    StageFolder(root, stage).store.delete([MANIFEST, STATS, f"commits/{shard}.json"])
