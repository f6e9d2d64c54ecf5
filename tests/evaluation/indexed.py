"""Pictures of drawn scenes, an index of them by an untrained vision transformer, checkpoints to caption them with."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from demo.scenes import PHRASINGS, caption, random_scene, render
from model.checkpoint import save_pretrained
from model.config import ReViLMConfig
from model.open_clip_weights import config_of, read_weights
from model.revilm import ReViLM
from model.training.encoders import EncoderRecipe
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import Stage
from stages.download import Download, DownloadRecipe
from stages.embed import Embed
from stages.filter import FilterRecipe, filter_stages
from stages.index import IndexRecipe, index_stages
from tests.model.small_models import Mode, small_config, small_model
from tests.model.test_checkpoint import TOKENIZER
from tests.stages.download.test_stage import Fixed
from tests.stages.embed.pictures import TINY_RECIPE, Untrained
from tests.stages.filter.test_duplicates import KEEP_ALL

SCENES, NEIGHBORS = 24, 2


def draw(folder: Path) -> Path:
    random = Random(8)
    for number in range(SCENES):
        render(random_scene(random), width_px=320, height_px=280).save(folder / f"{number:02d}.png")
    return folder


def indexed(root: Path, pictures: Path, source: str) -> str:
    random = Random(8)
    rows = [
        {"pair_id": f"{source}-{number:010d}", "source": source, "local_path": str(path)}
        | {"caption": caption(random_scene(random), PHRASINGS[0])}
        for number, path in enumerate(sorted(pictures.glob("*.png")))
    ]
    stages: list[Stage[Any]] = [Untrained(), Fixed(rows), Download(DownloadRecipe()), Embed(TINY_RECIPE)]
    stages += [*filter_stages(FilterRecipe(defaults=KEEP_ALL)), *index_stages(IndexRecipe(min_recall=None, nlist=1))]
    report = Run(str(root), stages, recipe="embed: {model: encoder, batch_size: 8, cpus: 1}").execute(LocalExecutor())
    assert report.exit_code == 0, report
    return str(root)


def config(mode: Mode = "cross", neighbors: int = NEIGHBORS) -> ReViLMConfig:
    small = small_config("gpt2", mode, vocabulary=TOKENIZER.size)
    return replace(small, retrieval=replace(small.retrieval, neighbors=neighbors))


def saved(folder: Path, model: ReViLM) -> str:
    save_pretrained(folder, model, TOKENIZER)
    return str(folder)


def with_encoder_of(root: str) -> ReViLM:
    """A model that looks at pictures with the encoder of the index's vectors."""
    described, weights = EncoderRecipe(root=root).files()
    encoder = config_of(described)
    small = config()
    assert small.vision is not None
    model = small_model(replace(small, vision=replace(small.vision, encoder=encoder)))
    model.image_encoder = read_weights(encoder, weights)
    return model.eval()
