"""A corpus of real pictures with all that a training reads beside it, in a second: neighbours, five-pair samples, an
image encoder as open_clip writes it; and recipes that train a nano model on them."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save_file

from model.config import ImageEncoderConfig
from model.image_encoder import ImageEncoder
from model.training.checkpoints import Checkpoints
from model.training.launch import launch
from model.training.recipe import TrainRecipe
from pipeline.recipe import Json
from pipeline.schemas import PAIRS
from pipeline.stage import Counts
from pipeline.writer import ShardWriter, Task
from stages.filter.corpus import IN_THIS_CORPUS
from stages.interleave import InterleaveRecipe, interleave_stages
from stages.neighbors import NeighborsRecipe, neighbor_stages
from tests.stages.index.corpora import Drawn, Vectors, finish, unit

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 60, 220), "grey": (120, 120, 120)}
THINGS = ("ball", "star", "boat", "tower", "leaf")
IMAGE_PX, PATCH_PX = 32, 16


@dataclass(frozen=True)
class Scenes(Drawn):
    """Pictures of one colour, whose vectors lie near those of the same colour, with captions that name it.

    broken: rows whose picture is no JPEG."""

    rows: int = 72
    width: int = 12
    shards: int = 3
    broken: tuple[int, ...] = ()

    @property
    def images(self) -> Vectors:
        rng = np.random.default_rng(self.seed)
        centers = rng.standard_normal((len(COLOURS), self.width))
        return unit(centers[np.arange(self.rows) % len(COLOURS)] + 0.7 * rng.standard_normal((self.rows, self.width)))

    def caption(self, number: int) -> str:
        colour = [*COLOURS][number % len(COLOURS)]
        return f"a {colour} {THINGS[number % len(THINGS)]} and {number} {colour} dots"

    def row(self, number: int) -> dict[str, Any]:
        own = {"caption": self.caption(number), "input": IN_THIS_CORPUS, "stored_sha256": f"{self.source} {number}"}
        return super().row(number) | own

    def jpeg(self, number: int) -> bytes:
        return b"no picture" if number in self.broken else jpeg(number % len(COLOURS), number)

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        rows, offset = range(task.params["first"], task.params["end"]), 0
        here, table = slice(rows.start, rows.stop), []
        with out.file("images", "{stem}.tar").open("wb") as file:
            for number in rows:
                size = file.write(self.jpeg(number))
                table.append(self.row(number) | {"shard": task.id, "offset": offset, "bytes": size})
                offset += size
        out.array("img_emb", "img_emb/{stem}.npy", self.images[here])
        out.array("text_emb", "text_emb/{stem}.npy", self.captions[here])
        out.table("metadata", "metadata/{stem}.parquet", pa.Table.from_pylist(table, schema=PAIRS))
        return Counts(len(rows), len(rows))


@cache
def jpeg(colour: int, number: int) -> bytes:
    """A picture of one colour with as much grey above as its number says, so that no two are equal."""
    pixels = np.empty((40, 36, 3), np.uint8)
    pixels[:] = [*COLOURS.values()][colour]
    pixels[: number // 4] //= 2
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=95)
    return written.getvalue()


def write_encoder(folder: Path, seed: int = 7) -> None:
    """A vision transformer as open_clip stores its CLIP."""
    shape = {"image_size": IMAGE_PX, "patch_size": PATCH_PX, "width": 64, "layers": 1, "head_width": 32}
    torch.manual_seed(seed)
    encoder = ImageEncoder(ImageEncoderConfig(image_size=IMAGE_PX, patch_size=PATCH_PX, width=64, layers=1, heads=2))
    folder.mkdir(parents=True, exist_ok=True)
    save_file({f"visual.{name}": each for name, each in encoder.state_dict().items()}, folder / "clip.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"vision_cfg": shape}}))


@dataclass(frozen=True)
class Tiny:
    """A folder with a corpus, its neighbours, samples of five with theirs, and an image encoder."""

    folder: Path
    scenes: Scenes = Scenes()

    def root(self, name: str) -> str:
        return str(self.folder / name)

    def make(self) -> "Tiny":
        finish(self.folder / "corpus", [self.scenes])
        make_neighbors(self.folder / "neighbors", self.root("corpus"))
        make_samples(self.folder / "samples", self.root("corpus"), neighbors=self.root("neighbors"))
        write_encoder(self.folder / "encoder")
        return self

    @property
    def encoder(self) -> dict[str, str]:
        return {
            "model": str(self.folder / "encoder" / "open_clip_config.json"),
            "weights": str(self.folder / "encoder" / "clip.safetensors"),
        }

    def recipe(self, root: Path | str, stage: str, **section: Json) -> dict[str, Json]:
        """Of one stage on the pairs, a dict that may be changed. section: settings of the stage."""
        pairs = {"corpus": self.root("corpus"), "neighbors": self.root("neighbors"), "batch": 8}
        given = {"updates": 4, "learning_rate": 1e-3, "warm_up": 2, "micro_batch": 8, "text_tokens": 24}
        every = {"checkpoint_every": 2, "evaluate_every": 4, "sources": {"pairs": pairs}}
        return {
            "root": str(root),
            "engine": "local",
            "stage": stage,
            "held_out": {"share": 0.15, "samples": 8},
            "model": {
                "preset": "nano",
                "vocab_size": 300,
                "neighbors": 2,
                "caption_tokens": 24,
                "image_encoder": self.encoder,
            },
            stage: given | every | section,
        }


def make_neighbors(root: Path, corpus: str, **recipe: Json) -> str:
    wanted = {"k": 3, "over_fetch": 4, "depth": 40} | recipe
    return finish(root, neighbor_stages(NeighborsRecipe(**wanted), corpus))


def make_samples(root: Path, *corpora: str, neighbors: str = "") -> str:
    band: dict[str, Json] = {"metric": "cosine", "lo": 0.0, "hi": 1.2, "probe_queries": 20, "queries_per_task": 20}
    recipe = InterleaveRecipe(**band, materialize=False, **({"neighbors": neighbors} if neighbors else {}))
    # The last stage is a report, whose pictures take longer than all others.
    return finish(root, interleave_stages(recipe, corpora)[:-1])


def train(recipe: Mapping[str, Json]) -> str:
    return launch(TrainRecipe.model_validate(dict(recipe)))


def result(root: Path | str, stage: str) -> dict[str, bytes]:
    """The files of the last checkpoint of a stage: what two trainings that are the same have alike."""
    checkpoints = Checkpoints(f"{root}/{stage}")
    latest = checkpoints.latest()
    assert latest is not None
    with checkpoints.opened(latest) as folder:
        return {entry.path: Path(folder, entry.path).read_bytes() for entry in latest.files}


def updates_told(root: Path | str, stage: str) -> list[dict[str, Any]]:
    """The lines of updates.jsonl, less how long things took and what that made of speeds and memory."""
    lines = Path(root, stage, "watch", "updates.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in ("seconds", "memory_gib")}
        for line in lines
    ]
