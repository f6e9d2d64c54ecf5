"""Recall and zero-shot accuracy against rankings that are sorted out one by one, on a real corpus of a tiny encoder."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image
from pydantic import ValidationError

from model.evaluation.bootstrap import clustered, interval
from model.evaluation.class_vectors import class_vectors
from model.evaluation.encoder_recipe import EncoderEvaluationRecipe
from model.evaluation.encoder_scores import Pairs, classification_scores, encoder_stages, retrieval_scores
from model.evaluation.ranks import AT_ONCE, Half, Ids, ranks
from pipeline.commits import Whole
from pipeline.errors import InputError
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import Stage
from stages.embed import Embed, Embedder
from stages.filter import FilterRecipe, filter_stages
from tests.stages.embed.pictures import TINY_RECIPE, Untrained, drawn_pairs
from tests.stages.filter.making import Downloaded, Made, Picture
from tests.stages.filter.test_duplicates import KEEP_ALL
from tests.toys import data_of

PICTURES, NAMES = 14, ("circle", "square", "star")
TWICE, WITHOUT_ID = 8, 9


def sorted_ranks(queries: Half, wanted: Ids, candidates: Half, labels: Ids) -> list[int]:
    """All candidates of a query in order, of equals the wrong ones first: the place of the first right one."""
    found = []
    for query, label in zip(queries, wanted, strict=True):
        cosines = [sum(float(x) * float(y) for x, y in zip(query, each, strict=True)) for each in candidates]
        order = sorted(range(len(candidates)), key=lambda n: (-cosines[n], bool(labels[n] == label)))
        found.append([bool(labels[n] == label) for n in order].index(True))
    return found


# ── ranks ──


@pytest.mark.parametrize("seed", range(3))
def test_a_rank_is_the_place_of_the_best_right_candidate_and_a_tie_counts_against_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    queries, candidates = (random.integers(-1, 2, (n, 4)).astype(np.float16) for n in (25, 40))
    labels = np.concatenate([np.arange(12), random.integers(0, 12, 28)])
    wanted = random.integers(0, 12, 25)
    assert ranks(queries, wanted, candidates, labels).tolist() == sorted_ranks(queries, wanted, candidates, labels)


def test_a_model_of_one_vector_for_all_finds_nothing() -> None:
    same = np.ones((9, 4), np.float16)
    assert ranks(same, np.arange(9), same, np.arange(9)).tolist() == [8] * 9


def test_ranks_are_the_same_in_whichever_block_a_query_lies() -> None:
    random = np.random.default_rng(3)
    queries, candidates = (random.standard_normal((n, 2)).astype(np.float16) for n in (3000, 4000))
    assert len(queries) * len(candidates) > 2 * AT_ONCE
    wanted, labels = random.integers(0, 4000, 3000), np.arange(4000)
    found = ranks(queries, wanted, candidates, labels)
    assert found[2900:].tolist() == ranks(queries[2900:], wanted[2900:], candidates, labels).tolist()


def test_a_query_for_what_is_not_there_is_refused() -> None:
    same = np.ones((2, 4), np.float16)
    with pytest.raises(ValueError, match="1 of 2 queries have no right candidate"):
        ranks(same, np.array([0, 7]), same, np.array([0, 1]))


# ── figures ──


def test_what_is_asked_of_one_picture_is_drawn_together() -> None:
    hits, pictures = np.repeat([1.0, 0.0, 0.0, 1.0, 0.0], 20), np.repeat(np.arange(5), 20)
    together, apart = clustered(hits, pictures, seed=1), clustered(hits, np.arange(100), seed=1)
    assert together.value == apart.value == 0.4
    assert together.high - together.low > 3 * (apart.high - apart.low)
    assert together == interval(np.array([20.0, 0, 0, 20, 0]), np.full(5, 20.0), seed=1)


def pairs_of(images: npt.ArrayLike, captions: npt.ArrayLike, said: list[str], picture: list[int]) -> Pairs:
    return Pairs((np.array(images, np.float16), np.array(captions, np.float16)), said, np.array(picture))


def test_every_class_weighs_the_same_in_the_mean_over_classes() -> None:
    said = ["circle"] * 3 + ["square"]
    pairs = pairs_of([[1, 0, 0]] * 4, [[0, 0, 0]] * 4, said, [0, 1, 2, 3])
    first, first_five, mean = classification_scores(pairs, NAMES, np.eye(3, dtype=np.float16))
    assert (first["value"], mean["value"]) == (0.75, 0.5)
    assert "value" not in first_five
    assert first_five["note"] == "not computed: all 3 candidates are among the first 5"


def test_a_picture_is_found_by_any_of_its_captions_and_each_caption_looks_for_it() -> None:
    # Twelve pictures along the axes; of each, one caption that is its own vector, and one that is the next picture's.
    images, axes = np.repeat(np.eye(12), 2, axis=0), np.eye(12)
    captions = np.stack([axes[(number + other) % 12] for number in range(12) for other in (0, 1)])
    tilted = captions + 0.01 * np.tile([[1.0], [0.0]], (12, 1)) * images  # a picture's own caption is the nearest
    pairs = pairs_of(images, tilted, [""] * 24, np.repeat(np.arange(12), 2).tolist())
    found = {(row["task"], row["at"]): row["value"] for row in retrieval_scores(pairs)}
    assert found["text_to_image", 1] == 0.5
    assert found["image_to_text", 1] == 1.0


# ── the stages ──


def made(number: int, caption: str, jpeg: bytes, said: int) -> Made:
    width, height = Image.open(io.BytesIO(jpeg)).size
    return Made(
        pair_id=f"shapes-{2 * number + said:010d}",
        caption=caption,
        size=(2 * width, 2 * height),
        image_id=None if number == WITHOUT_ID else f"{number}",
        picture=Picture(jpeg, phash=number),
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A corpus of pictures, of which every second one has two captions. The bytes of TWICE are those of the first."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "recipe.yaml").write_text(yaml.safe_dump({"embed": TINY_RECIPE.model_dump(mode="json")}))
    jpegs = [jpeg for jpeg, _ in drawn_pairs(PICTURES)]
    jpegs[TWICE] = jpegs[0]
    rows = [
        made(number, NAMES[(number + said) % 3], jpeg, said)
        for number, jpeg in enumerate(jpegs)
        for said in range(1 + number % 2)
    ]
    stages: list[Stage[Any]] = [Untrained(), Downloaded([rows[:9], rows[9:]]), Embed(TINY_RECIPE)]
    report = Run(str(root), [*stages, *filter_stages(FilterRecipe(defaults=KEEP_ALL))]).execute(LocalExecutor())
    assert report.exit_code == 0, report
    return str(root)


def scores(root: Path, recipe: EncoderEvaluationRecipe) -> list[dict[str, Any]]:
    report = Run(str(root), encoder_stages(recipe)).execute(LocalExecutor())
    assert report.exit_code == 0, [report, *report.failed.values()]
    return list(Whole.open(str(root), "encoder_scores").tables("scores").to_pylist())


def test_the_figures_of_a_run_are_those_of_sorted_rankings(pictures: str, tmp_path: Path) -> None:
    recipe = EncoderEvaluationRecipe(pictures=pictures, tasks=("retrieval", "classification"))
    found = {(row["task"], row["metric"], row["at"]): row for row in scores(tmp_path / "made", recipe)}
    corpus = Whole.open(pictures, "corpus")
    rows = corpus.tables("metadata").to_pylist()
    images, captions = (
        np.concatenate([corpus.read(shard).array(name) for shard in corpus.shards]) for name in ("img_emb", "text_emb")
    )
    picture = np.array([int(row["pair_id"].removeprefix("shapes-")) // 2 for row in rows])
    numbers, first = np.unique(picture, return_index=True)
    assert (len(rows), len(numbers)) == (21, PICTURES)
    to_image = sorted_ranks(captions, picture, images[first], numbers)
    to_text = sorted_ranks(images[first], numbers, captions, picture)
    for task, expected in (("text_to_image", to_image), ("image_to_text", to_text)):
        for at in (1, 5, 10):
            assert found[task, "recall", at]["value"] == pytest.approx(np.mean(np.array(expected) < at))
    classes = class_vectors(NAMES, recipe.templates, Embedder.of(pictures, "cpu").open())
    wanted = np.array([NAMES.index(row["caption"]) for row in rows])
    expected = sorted_ranks(images, wanted, classes, np.arange(3))
    assert found["classification", "accuracy", 1]["value"] == pytest.approx(np.mean(np.array(expected) < 1))
    assert found["classification", "accuracy", 5]["value"] is None
    again = scores(tmp_path / "again", recipe)
    assert again == [*found.values()]
    stages = ("encoder_classes", "encoder_scores")
    assert [data_of(str(tmp_path / "made"), stage) for stage in stages] == [
        data_of(str(tmp_path / "again"), stage) for stage in stages
    ]


def test_the_vector_of_a_class_is_the_mean_of_its_templates(pictures: str) -> None:
    towers = Embedder.of(pictures, "cpu").open()
    (one,) = class_vectors(["star"], ["a {}"], towers)
    assert np.allclose(one, towers.encode_texts(["a star"])[0], atol=1e-3)
    (both,) = class_vectors(["star"], ["a {}", "{}, drawn"], towers)
    total = towers.encode_texts(["a star", "star, drawn"]).sum(0)
    assert np.allclose(both, total / np.linalg.norm(total), atol=1e-3)


# ── what is refused before anything starts ──


def test_captions_that_are_no_class_are_refused_with_number_and_names(pictures: str) -> None:
    recipe = EncoderEvaluationRecipe(pictures=pictures, tasks=("classification",), classes=("circle", "dog"))
    with pytest.raises(InputError, match=r"2 of 3 different captions are none of the 2 classes, such as \['square'"):
        encoder_stages(recipe)


def test_a_run_that_is_not_finished_or_does_not_say_its_model_is_refused(pictures: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="corpus is not whole"):
        encoder_stages(EncoderEvaluationRecipe(pictures=str(tmp_path)))
    recipe = Path(pictures, "recipe.yaml")
    said = recipe.read_text()
    recipe.unlink()
    try:
        assert len(encoder_stages(EncoderEvaluationRecipe(pictures=pictures))) == 1  # retrieval needs no model
        with pytest.raises(InputError, match=r"recipe.yaml is missing, and it says which model"):
            encoder_stages(EncoderEvaluationRecipe(pictures=pictures, tasks=("classification",)))
    finally:
        recipe.write_text(said)


@pytest.mark.parametrize(
    "wrong",
    [{"templates": ("a photo",)}, {"templates": ()}, {"classes": ("a", "a")}, {"classes": ("a",)}, {"tasks": ()}],
)
def test_a_recipe_that_asks_for_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EncoderEvaluationRecipe(pictures="runs/set", **wrong)
