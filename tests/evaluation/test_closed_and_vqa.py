"""Questions about pictures and closed-ended tasks: asked through the same prompts as captions, judged by their own
rules."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from jobs.evaluate import main
from model.evaluation.answerer import Answerer
from model.evaluation.recipe import EvaluationRecipe
from model.evaluation.tasks import task_of
from model.evaluation.vqa_accuracy import soft_accuracy
from model.sequence import Chunk
from model.training.pictures import decode
from pipeline.commits import Whole
from pipeline.errors import InputError
from pipeline.stage import Stage
from stages.download import Download, DownloadRecipe
from stages.embed import Embed
from stages.filter import CorpusReader, FilterRecipe, filter_stages
from stages.ingest import IngestRecipe, ingest_stages
from tests.evaluation.worlds import World, run
from tests.stages.embed.pictures import TINY_RECIPE, Untrained
from tests.stages.filter.test_duplicates import KEEP_ALL

Vqa = Mapping[str, str]


def write_vqa(folder: Path, name: str, pictures: int) -> dict[str, str]:
    """Two questions a picture, image ids from 100; → the two files."""
    asked, answered = [], []
    for number in range(2 * pictures):
        about = {"question_id": 1000 + number, "image_id": 100 + number // 2}
        kind = ("number", "other")[number % 2]
        said = [{"answer": word} for word in ["two", "two", "red", "2"] + ["blue"] * (number % 3)]
        asked.append(about | {"question": f"{kind[0]}{number}?", "multiple_choices": ["two", "red", "no"]})
        answered.append(about | {"answers": said, "answer_type": kind})
    paths = {"questions": folder / f"{name}-q.json", "annotations": folder / f"{name}-a.json"}
    paths["questions"].write_text(json.dumps({"questions": asked}))
    paths["annotations"].write_text(json.dumps({"annotations": answered}))
    return {what: str(path) for what, path in paths.items()} | {"template": "{question}"}  # the small model has no room


@pytest.fixture(scope="module")
def files(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("vqa")
    train = write_vqa(folder, "train", world.train_pictures)
    asked = write_vqa(folder, "test", world.test_pictures)
    return asked | {f"example_{name}": train[name] for name in ("questions", "annotations")}


def test_questions_are_asked_with_examples_of_other_pictures_and_judged_softly(
    world: World, files: dict[str, str], tmp_path: Path
) -> None:
    answers, scores = world.evaluate(
        tmp_path / "vqa", vqa=files, shots=[0, 2], examples=world.examples, new_tokens=[3], neighbors=[2]
    )
    assert set(answers["asked"]) == {
        f"{kind[0]}{number}?" for number in range(2 * world.test_pictures) for kind in [("number", "other")[number % 2]]
    }
    cell = answers.filter((pl.col("model") == "cross") & (pl.col("shots") == 2))
    assert set(cell["shown"]) == {2}
    found = scores.filter((pl.col("model") == "cross") & (pl.col("shots") == 2) & (pl.col("metric") == "accuracy"))
    for domain, value in found.select("domain", "value").iter_rows():
        rows = cell.filter((pl.col("domain") == domain) | (domain == "")).to_dicts()
        right = [soft_accuracy(row["answer"], row["references"]) for row in rows]
        assert value == pytest.approx(sum(right) / len(right), abs=1e-12)
    assert set(found["domain"]) == {"", "number", "other"}


def test_a_choice_is_the_most_probable_over_the_orders_of_its_examples(
    world: World, files: dict[str, str], tmp_path: Path
) -> None:
    """Against the model asked by hand: both orders of two examples."""
    answers, scores = world.evaluate(
        tmp_path / "choices", vqa=files, choices={}, shots=[2], examples=world.examples, neighbors=[0]
    )
    answerer = Answerer.open(world.models["none"])
    vision = answerer.model.config.vision
    assert vision is not None
    test, train = CorpusReader(world.test), CorpusReader(world.train)
    supports = {
        row["pair_id"]: row["supports"] for row in Whole.open(world.examples, "fewshot").tables("shots_2").to_pylist()
    }
    for row in answers.filter(pl.col("model") == "none").to_dicts()[:4]:
        own = test.row(row["row_id"])
        image = decode(test.picture(own), vision.encoder.image_size)
        question = Chunk(image=image, prompt=row["asked"], ends=False)
        examples = [
            Chunk(
                image=decode(train.picture(train.row(each["row_id"])), vision.encoder.image_size),
                prompt=f"n{2 * (int(train.row(each['row_id'])['image_id']) - 100)}?",
                text=" two",
            )
            for each in supports[own["pair_id"]]
        ]
        prompts = [[*examples, question], [*reversed(examples), question]]
        nats = answerer.log_likelihood(prompts, [[" two", " red", " no"]] * 2)
        best = ("two", "red", "no")[int(torch.stack(nats).double().mean(0).argmax())]
        assert (row["answer"], row["new_tokens"]) == (best, 0)
    assert set(scores.filter(pl.col("metric") == "accuracy")["domain"]) == {"", "number", "other"}


def test_classes_are_the_captions_of_the_set(world: World, tmp_path: Path) -> None:
    _, scores = world.evaluate(tmp_path / "classes", pictures=world.classes, choices={}, neighbors=[0])
    answers = pl.DataFrame(Whole.open(str(tmp_path / "classes"), "evaluation_answers").tables("answers"))
    names = set(answers["references"].explode())
    assert set(answers["answer"]) <= names
    right = answers.filter(pl.col("model") == "cross").select(pl.col("references").list.contains(pl.col("answer")))
    value = scores.filter((pl.col("model") == "cross") & (pl.col("metric") == "accuracy"))["value"].item()
    assert value == right.to_series().mean()


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        ({"pictures": "TRAIN", "vqa": "MORE"}, "asks about 1 pictures that are not in"),
        (
            {"vqa": "FILES", "shots": [2], "examples": "EXAMPLES"},
            "name vqa.example_questions and",
        ),
        ({"vqa": {"questions": "/no", "annotations": "/no"}}, "/no cannot be read"),
        ({"choices": {}, "classes": ["zebra", "gnu"]}, "evaluation.classes lacks the class of"),
    ],
)
def test_files_that_do_not_go_with_the_pictures_are_refused(
    world: World, tmp_path: Path, evaluation: dict[str, Any], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = write_vqa(tmp_path, "more", world.train_pictures + 1)
    places: dict[str, Any] = {"TRAIN": world.train, "MORE": more, "FILES": more, "EXAMPLES": world.examples}
    named = {key: places.get(value, value) if isinstance(value, str) else value for key, value in evaluation.items()}
    if expected.startswith("name"):
        named["vqa"] = write_vqa(tmp_path, "few", world.test_pictures)
    code, _ = world.run(tmp_path / "refused", named)
    assert code == 2
    assert expected in capsys.readouterr().err


def test_an_image_id_of_two_pictures_is_refused(world: World, files: dict[str, str], tmp_path: Path) -> None:
    """Of two sources; a question would be asked about either."""
    folders = {name: world.folder / f"{name}-list" for name in ("test", "train")}
    sources = [
        {"name": name, "preset": "coco", "files": [str(folder / "captions.json")], "folder": str(folder)}
        for name, folder in folders.items()
    ]
    ingest = IngestRecipe.model_validate({"sources": sources})
    stages: list[Stage[Any]] = [Untrained(), *ingest_stages(ingest), Download(DownloadRecipe()), Embed(TINY_RECIPE)]
    both = run(tmp_path / "both", [*stages, *filter_stages(FilterRecipe(defaults=KEEP_ALL))])
    recipe = EvaluationRecipe.model_validate({"pictures": both, "vqa": files})
    with pytest.raises(InputError, match="several pictures of 7 image_ids that are asked about, .*: 100, 101"):
        task_of(recipe).questions(CorpusReader(both))


def test_a_recipe_that_evaluates_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nothing.yaml"
    path.write_text(f"root: {tmp_path}/root")
    assert main([str(path)]) == 2
    assert "say what to evaluate: evaluation, of models, or encoder" in capsys.readouterr().err
