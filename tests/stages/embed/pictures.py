"""A download of pictures that are at hand, and a run that embeds them with a tiny model."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from demo.scenes import PHRASINGS, caption, random_scene, render
from pipeline.commits import Committed, StageFolder
from pipeline.executor import LocalExecutor
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.run import Run
from pipeline.schemas import DOWNLOADED
from pipeline.stage import Counts, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.embed import Embed, EmbedRecipe

Pair = tuple[bytes | None, str]  # JPEG, or None where the download failed, and caption

TINY: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "head_width": 16, "width": 32, "layers": 2},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "heads": 2, "width": 32, "layers": 2},
    },
    "preprocess_cfg": {},
}
TINY_RECIPE = EmbedRecipe(model="encoder", batch_size=8, cpus=1, device="cpu")


def write_tiny(folder: Path, preprocessing: Mapping[str, Json] | None = None) -> Path:
    """The config of a tiny model, for Towers.load_files."""
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps(TINY | {"preprocess_cfg": preprocessing or {}}))
    return path


def jpeg_of(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def drawn_pairs(count: int, seed: int = 1) -> list[tuple[bytes, str]]:
    rng = Random(seed)
    scenes = [random_scene(rng) for _ in range(count)]
    sizes = [(rng.randint(40, 120), rng.randint(40, 120)) for _ in scenes]
    images = [render(scene, width_px=w, height_px=h) for scene, (w, h) in zip(scenes, sizes, strict=True)]
    return [(jpeg_of(i), caption(s, rng.choice(PHRASINGS))) for i, s in zip(images, scenes, strict=True)]


@dataclass(frozen=True)
class AtHand(Stage[None]):
    """The download stage's files, from pictures in memory."""

    pairs: Sequence[Pair]
    sizes: Sequence[tuple[int, int]]  # px
    name, version = "download", 1

    def settings(self) -> Mapping[str, Json]:
        return {}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        rows = [self._row(number) for number in range(len(self.pairs))]
        tar = out.file("images", "{stem}.tar")
        with tarfile.open(tar, "w") as file:
            for row, (jpeg, _) in zip(rows, self.pairs, strict=True):
                if jpeg is None:
                    out.reject(row["key"], Reason.HTTP_CLIENT_ERROR)
                    continue
                member = tarfile.TarInfo(f"{row['key']}.jpg")
                member.size = len(jpeg)
                file.addfile(member, io.BytesIO(jpeg))
        with tarfile.open(tar) as file:
            places = {m.name.removesuffix(".jpg"): (m.offset_data, m.size) for m in file}
        for row in rows:
            row["image_offset"], row["image_bytes"] = places.get(row["key"], (None, None))
        out.table("pairs", "{stem}.parquet", pa.Table.from_pylist(rows, schema=DOWNLOADED))
        return Counts(len(rows), len(places))

    def _row(self, number: int) -> dict[str, Any]:
        (jpeg, text), (width, height) = self.pairs[number], self.sizes[number]
        found = (
            {"reason": None, "width": width, "height": height} if jpeg is not None else {"reason": "http_client_error"}
        )
        return {"key": f"toy-{number:010d}", "source": "toy", "caption": text, "status": "success", **found}


@dataclass(frozen=True)
class Untrained(Stage[None]):
    """An encoder stage with random weights."""

    name, version = "encoder", 1

    def settings(self) -> Mapping[str, Json]:
        return {}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        import torch
        from safetensors.torch import save_file

        from stages.embed.towers import Towers

        config = out.file("config", "{stem}/open_clip_config.json")
        config.write_text(json.dumps(TINY))
        with torch.random.fork_rng():
            torch.manual_seed(3)
            towers = Towers.load_files(config, None)
        save_file(towers.model.state_dict(), out.file("weights", "{stem}/open_clip_model.safetensors"))
        return Counts(0, 0)


@dataclass(frozen=True)
class Embedded:
    root: str
    shard: Committed

    @property
    def pairs(self) -> list[dict[str, Any]]:
        return list(self.shard.table("pairs").to_pylist())

    @property
    def rejects(self) -> dict[str, str]:
        """pair_id → reason."""
        entry = self.shard.record.rejects_file
        rows = pq.read_table(Path(self.root, "embed", entry.path)).to_pylist() if entry else []
        return {row["pair_id"]: row["reason"] for row in rows}

    def bytes_of(self, name: str) -> bytes:
        return self.shard.path(name).read_bytes()


def embed(
    root: Path,
    pairs: Sequence[Pair],
    recipe: EmbedRecipe = TINY_RECIPE,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Embedded:
    """sizes: what the download says of the pictures; None: the truth."""
    sizes = sizes or [Image.open(io.BytesIO(jpeg)).size if jpeg is not None else (0, 0) for jpeg, _ in pairs]
    report = Run(str(root), [Untrained(), AtHand(pairs, sizes), Embed(recipe)]).execute(LocalExecutor())
    assert not report.failed, report.failed
    folder = StageFolder(str(root), "embed")
    return Embedded(str(root), Committed(folder, folder.record(shard_id(0))))
