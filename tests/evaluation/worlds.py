"""Splits of a drawn captioning set as finished runs: from COCO's form on disk, by the stages that users run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Literal

import polars as pl
import yaml

from demo.scenes import PHRASINGS, Scene, caption, random_scene, render
from jobs.evaluate import main
from model.checkpoint import save_pretrained
from pipeline.commits import Whole
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import Stage
from stages.download import Download, DownloadRecipe
from stages.embed import Embed
from stages.filter import FilterRecipe, filter_stages
from stages.index import IndexRecipe, index_stages
from stages.ingest import IngestRecipe, ingest_stages
from stages.interleave import FewshotRecipe, fewshot_stages
from tests.model.small_models import small_config, small_model
from tests.model.test_checkpoint import TOKENIZER
from tests.stages.embed.pictures import TINY_RECIPE, Untrained
from tests.stages.filter.test_duplicates import KEEP_ALL

FIVE = PHRASINGS[:5]
SHOWN_TOO = 3  # the test picture that stands in the train split
Mode = Literal["none", "cross", "prefix"]
MODES: tuple[Mode, ...] = ("cross", "none")


def scenes(number: int, seed: int) -> list[Scene]:
    random = Random(seed)
    return [random_scene(random) for _ in range(number)]


def write_coco(folder: Path, drawn: Sequence[Scene], phrasings: Sequence[str]) -> Path:
    """A JSON in COCO's form beside its pictures, a caption a phrasing; image ids from 100."""
    folder.mkdir(parents=True)
    for number, scene in enumerate(drawn):
        render(scene, width_px=96, height_px=80).save(folder / f"{number}.png")
    path = folder / "captions.json"
    images = [{"id": 100 + number, "file_name": f"{number}.png"} for number in range(len(drawn))]
    annotations = [
        {"image_id": 100 + number, "caption": caption(scene, phrasing)}
        for number, scene in enumerate(drawn)
        for phrasing in phrasings
    ]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def run(root: Path, stages: Sequence[Stage[Any]], recipe: str = "") -> str:
    report = Run(str(root), stages, recipe=recipe).execute(LocalExecutor())
    assert report.exit_code == 0, report
    return str(root)


def split(root: Path, captions: Path, name: str, *, index: bool = False) -> str:
    """The root of a run of a set's split, its encoder untrained."""
    source = {"name": name, "preset": "coco", "files": [str(captions)], "folder": str(captions.parent)}
    ingest = IngestRecipe.model_validate({"sources": [source], "duplicates": "keep"})
    stages: list[Stage[Any]] = [Untrained(), *ingest_stages(ingest), Download(DownloadRecipe()), Embed(TINY_RECIPE)]
    stages += filter_stages(FilterRecipe(defaults=KEEP_ALL))
    stages += index_stages(IndexRecipe(min_recall=None, nlist=1)) if index else []
    return run(root, stages, "embed: {model: encoder, batch_size: 8, cpus: 1}")


def examples(root: Path, train: str, test: str, **settings: Any) -> str:
    recipe = FewshotRecipe.model_validate({"shots": [2], "selection": "rices"} | settings)
    return run(root, fewshot_stages(recipe, [train], test))


def checkpoint(folder: Path, mode: Mode = "cross") -> str:
    folder.mkdir()
    save_pretrained(folder, small_model(small_config("gpt2", mode, vocabulary=TOKENIZER.size)), TOKENIZER)
    return str(folder)


@dataclass(frozen=True)
class World:
    """Two splits, their examples, and a model of each mode."""

    folder: Path
    test: str
    train: str  # with an index; its last picture is one of the test split
    classes: str  # the test pictures, a caption each
    examples: str
    models: Mapping[str, str]
    test_pictures: ClassVar[int] = 7
    train_pictures: ClassVar[int] = 10

    @classmethod
    def make(cls, folder: Path) -> "World":
        asked = scenes(cls.test_pictures, seed=1)
        test = split(folder / "test", write_coco(folder / "test-list", asked, FIVE), "test")
        classes = split(folder / "classes", write_coco(folder / "classes-list", asked, FIVE[:1]), "classes")
        shown = [*scenes(cls.train_pictures - 1, seed=2), asked[SHOWN_TOO]]
        train = split(folder / "train", write_coco(folder / "train-list", shown, FIVE[:2]), "train", index=True)
        models: dict[str, str] = {mode: checkpoint(folder / mode, mode) for mode in MODES}
        return cls(folder, test, train, classes, examples(folder / "examples", train, test), models)

    def evaluate(self, root: Path, **evaluation: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
        """→ answers and scores."""
        code, root = self.run(root, evaluation=evaluation)
        assert code == 0
        read = (("evaluation_answers", "answers"), ("evaluation_scores", "scores"))
        answers, scores = (pl.DataFrame(Whole.open(str(root), stage).tables(name)) for stage, name in read)
        return answers, scores

    def run(self, root: Path, evaluation: Mapping[str, Any], **said: Any) -> tuple[int, Path]:
        recipe: dict[str, Any] = {"root": str(root), "engine": "local", "databases": {"train": self.train, "no": None}}
        recipe |= {"models": dict(self.models), **said}
        asked = {"pictures": self.test, "new_tokens": [3, 5], "batch_size": 4, "device": "cpu", **evaluation}
        path = root.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(recipe | {"evaluation": asked}))
        return main([str(path)]), root
