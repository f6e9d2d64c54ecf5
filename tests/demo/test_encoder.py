"""The demo's encoder is a CLIP that open_clip can open, and learns what the scenes show."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from demo.contrastive import draw_pairs, train
from demo.encoder import TrainEncoder
from demo.encoder_report import recall, unlike
from demo.recipe import EncoderRecipe
from demo.scenes import Scene, random_scene
from demo.tags import TAGS, Tags
from pipeline.commits import Committed, StageFolder
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import shard_id
from stages.embed.towers import Towers

TINY = EncoderRecipe(
    steps=20, batch=12, width=32, image_px=32, image_width=8, text_layers=1, text_heads=2, context=16, threads=1
)
TEXTS = ["two red hearts on a beach", "a picture of one striped green tree in a forest"]


def trained(root: Path, recipe: EncoderRecipe = TINY) -> Committed:
    report = Run(str(root), [TrainEncoder(recipe)]).execute(LocalExecutor())
    assert not report.failed, report.failed
    folder = StageFolder(str(root), "encoder")
    return Committed(folder, folder.record(shard_id(0)))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Committed:
    return trained(tmp_path_factory.mktemp("encoder"))


def test_what_is_loaded_back_encodes_as_what_was_trained(encoder: Committed) -> None:
    torch.set_num_threads(1)
    loaded = Towers.load_files(encoder.path("config"), encoder.path("weights"))
    original = train(TINY, encoder.path("config")).towers
    pixels = draw_pairs(original, 5, Random(2)).pixels
    assert np.array_equal(loaded.encode_texts(TEXTS), original.encode_texts(TEXTS))
    assert np.array_equal(loaded.encode_images(pixels), original.encode_images(pixels))


def test_its_folder_opens_in_open_clip_by_itself(encoder: Committed) -> None:
    towers = Towers.load(f"local-dir:{encoder.path('weights').parent}", None)
    loaded = Towers.load_files(encoder.path("config"), encoder.path("weights"))
    assert np.array_equal(towers.encode_texts(TEXTS), loaded.encode_texts(TEXTS))


def test_the_same_recipe_gives_the_same_weights(encoder: Committed, tmp_path: Path) -> None:
    torch.manual_seed(77)
    expected = torch.random.get_rng_state()
    again = trained(tmp_path / "again")
    assert torch.equal(torch.random.get_rng_state(), expected), "the global generator is nobody's own"
    assert again.entry("weights").sha256 == encoder.entry("weights").sha256
    other = trained(tmp_path / "other", TINY.model_copy(update={"seed": 2}))
    assert other.entry("weights").sha256 != encoder.entry("weights").sha256


def test_the_report_tells_how_good_it_is(encoder: Committed) -> None:
    report = json.loads(encoder.path("report").read_text())
    assert len(report["losses"]) == TINY.steps
    assert np.mean(report["losses"][-5:]) < np.mean(report["losses"][:5])
    assert 0 <= report["image_to_text"]["recall@1"] <= report["image_to_text"]["recall@10"] <= 1
    for share in ("zero_shot_object", "zero_shot_colour", "auc"):
        assert 0 <= report[share] <= 1


def test_no_caption_stands_twice_in_a_batch(encoder: Committed) -> None:
    towers = Towers.load_files(encoder.path("config"), None)
    pairs = draw_pairs(towers, 300, Random(1))
    assert len(set(pairs.captions)) == len(pairs.scenes) == len(pairs.pixels) == 300


def test_tags_ask_an_embedding_for_every_attribute_of_its_scene() -> None:
    """An embedding that says which value each attribute has costs nothing; one that says another's costs much."""
    scenes = [Scene("ball", "red", 1, "beach", "plain", 0), Scene("star", "blue", 4, "city", "dotted", 0)]
    tags = Tags(2)
    for name, values in TAGS.items():
        head = tags.heads[name]
        assert isinstance(head, torch.nn.Linear)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        for axis, scene in enumerate(scenes):
            head.weight.data[values.index(getattr(scene, name)), axis] = 1.0
    assert tags.loss(torch.eye(2), scenes).item() < 0.01
    assert tags.loss(torch.eye(2).flip(0), scenes).item() > 10 * len(TAGS) * 0.9


def test_an_encoder_with_tags_has_other_weights_of_the_same_names(encoder: Committed, tmp_path: Path) -> None:
    tagged = trained(tmp_path, TINY.model_copy(update={"tags": 1.0}))
    assert tagged.entry("weights").sha256 != encoder.entry("weights").sha256
    assert load_file(tagged.path("weights")).keys() == load_file(encoder.path("weights")).keys()


def test_recall_counts_the_rows_that_find_their_own() -> None:
    vectors = np.eye(20, dtype=np.float32)
    assert recall(vectors, vectors) == {"recall@1": 1, "recall@5": 1, "recall@10": 1}
    swapped = vectors[[1, 0, *range(2, 20)]] + vectors * np.float32(0.5)
    assert recall(vectors, swapped) == {"recall@1": 0.9, "recall@5": 1, "recall@10": 1}


def test_a_mismatched_scene_has_another_object_in_another_colour() -> None:
    rng = Random(3)
    scenes = [random_scene(rng) for _ in range(60)]
    for scene, row in zip(scenes, unlike(scenes, rng), strict=True):
        assert scenes[row].object != scene.object
        assert scenes[row].colour != scene.colour


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_default_recipe_tells_matched_pairs_from_mismatched_ones(tmp_path: Path) -> None:
    report = json.loads(trained(tmp_path, EncoderRecipe()).path("report").read_text())
    assert report["auc"] >= 0.95
    assert report["image_to_text"]["recall@10"] >= 0.9
    assert report["zero_shot_colour"] >= 0.9
