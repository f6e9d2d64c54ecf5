"""The experiments compare what they say they compare: neighbours by the rules, questions without their answers, equal
budgets; and what they write down is what was measured."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from demo.encoder import TrainEncoder
from demo.named import NamedPair, make_world
from demo.recipe import EncoderRecipe, VitRecipe
from model.checkpoint import tensors_digest
from model.image_encoder import ImageEncoder
from model.open_clip_weights import config_of, read_weights
from pipeline.errors import FingerprintMismatch, InputError
from trials.experiments.arms import CROSS, EXPERIMENTS, INTERLEAVED, NONE, Budget, Course
from trials.experiments.measures import chance, share_said
from trials.experiments.neighbors import allowed, by_index, by_truth
from trials.experiments.report import Mean, read_figures, table
from trials.experiments.runs import Lab
from trials.experiments.samples import documents, five_pairs, questions
from trials.experiments.series import Series
from trials.experiments.setting import CONFIG, WEIGHTS, Setting

FEW = Course(updates=2, batch=10)
SMALL = Budget(training_groups=6, test_groups=3, captions=7, views=2, asked=2, language=FEW, retrofit=FEW, pretrain=FEW)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained vision transformer."""
    folder = tmp_path_factory.mktemp("encoder")
    recipe = EncoderRecipe(image_px=32, vit=VitRecipe(width=64, layers=1))
    (folder / CONFIG).write_text(json.dumps(recipe.open_clip_config()))
    torch.manual_seed(0)
    tower = ImageEncoder(config_of(folder / CONFIG))
    save_file({f"visual.{name}": tensor for name, tensor in tower.state_dict().items()}, folder / WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def setting(encoder: Path) -> Setting:
    return Setting(1, SMALL, encoder)


def a_group(views: int = 3) -> list[NamedPair]:
    return list(make_world(1, training_groups=1, test_groups=0, captions=4, views=views, asked=0).training)


def test_the_leakage_rules_leave_two_captions_that_are_not_the_own_one() -> None:
    group = a_group()
    for pair in group:
        captions = [other.caption for other in allowed(pair, by_truth(pair, group), "on", 2)]
        assert len({pair.caption, *captions}) == 3


def test_without_the_caption_rule_other_views_of_the_same_come_first() -> None:
    group = a_group()
    for pair in group:
        others = allowed(pair, by_truth(pair, group), "caption off", 2)
        assert pair not in others
        assert [other.caption for other in others] == [pair.caption] * 2


def test_without_rules_the_pair_is_its_own_nearest_neighbour() -> None:
    group = a_group()
    for pair in group:
        assert allowed(pair, by_truth(pair, group), "off", 2)[0] == pair


def test_an_index_ranks_the_most_similar_first() -> None:
    pairs = a_group()
    vectors = normalize(torch.randn(len(pairs), 16, generator=torch.Generator().manual_seed(0)))
    ranked = by_index(vectors, vectors, pairs)
    similarity = vectors @ vectors.T
    for row, (pair, others) in enumerate(zip(pairs, ranked, strict=True)):
        assert others[0] == pair
        found = [float(similarity[row, pairs.index(other)]) for other in others]
        assert found == sorted(found, reverse=True)
        assert len(others) == len(pairs)


def test_a_question_holds_no_caption_with_its_answer(setting: Setting) -> None:
    neighbors = setting.neighbors_when_asked(CROSS)
    for pair, sample in zip(setting.world.asked, questions(setting, neighbors, supports=4), strict=True):
        *shots, question = sample.chunks
        told = [*question.neighbors, *(shot.text for shot in shots)]
        assert len(told) == 6
        assert pair.caption not in told
        assert all(pair.group.name in caption.replace(",", "").replace(":", "").split() for caption in told)
        assert [chunk.learned for chunk in sample.chunks] == [False] * 4 + [True]


def test_redrawn_names_stand_in_all_that_is_told(setting: Setting) -> None:
    groups = {pair.group for pair in setting.world.asked}
    names = dict.fromkeys(groups, "zot")
    for sample in questions(setting, setting.neighbors_when_asked(CROSS), names, supports=4):
        told = [sample.chunks[-1].neighbors, [chunk.text for chunk in sample.chunks]]
        assert all(" zot" in caption for captions in told for caption in captions)


def test_documents_hold_one_to_five_captions_of_a_group(setting: Setting) -> None:
    lengths = set()
    for pair, sample in zip(setting.world.training, documents(setting), strict=True):
        texts = [chunk.text for chunk in sample.chunks]
        known = {each.caption for each in setting.training_groups[pair.group.number]}
        assert texts[-1] == pair.caption
        assert set(texts) <= known
        assert len(set(texts)) == len(texts)
        lengths.add(len(texts))
    assert lengths == {1, 2, 3, 4, 5}


def test_a_five_pair_sample_tells_its_last_name_before(setting: Setting) -> None:
    for pair, sample in zip(setting.world.training, five_pairs(setting), strict=True):
        assert [chunk.text for chunk in sample.chunks][-1] == pair.caption
        assert len({chunk.text for chunk in sample.chunks}) == 5
        assert all(pair.group.name in chunk.text for chunk in sample.chunks)


def test_an_answer_with_two_words_of_a_set_is_wrong() -> None:
    answers = [["two", "red"], ["red", "and", "blue"], ["red", "red"], []]
    assert share_said(answers, ["red"] * 4, ("red", "blue")) == 0.5


def test_chance_is_even_over_words_and_captions(setting: Setting) -> None:
    scores = chance(setting.tokenizer, setting.world.asked)
    assert (scores.name, scores.number, scores.colour) == (1 / 64, 1 / 4, 1 / 10)
    assert 0.5 < scores.loss < 1.5


def test_arms_start_from_one_language_model_and_leave_it_and_the_tower_as_they_were(setting: Setting) -> None:
    lab = Lab(setting)
    language_model, spent = lab.language
    before = tensors_digest(language_model), tensors_digest(setting.image_encoder)
    trained = [lab.trained(arm).model for arm in (NONE, CROSS)]
    assert spent.samples == 20
    for model in trained:
        assert model.image_encoder is not None
        assert (tensors_digest(model.language_model), tensors_digest(model.image_encoder)) == before
    reads = trained[1].retrieval_cross_attention.parameters()
    assert all(bool(each.any()) for each in reads), "what retrofit learned goes on: its outputs began at 0"


def test_all_arms_see_as_many_pictures_in_pretraining(setting: Setting) -> None:
    lab = Lab(setting)
    pairs, interleaved = (lab.trained(arm).pretrain for arm in (NONE, INTERLEAVED))
    assert pairs.samples == 20
    assert interleaved.samples == 2 * (5 + 1)  # five pairs, and a sample that has five
    assert interleaved.flops == pytest.approx(pairs.flops, rel=0.1)


def test_what_is_written_is_what_was_measured_and_is_not_made_again(encoder: Path, tmp_path: Path) -> None:
    series = Series(tmp_path, encoder, budget=SMALL)
    for seed in (1, 2):
        series.measure(seed, ["prefix"])
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(made) == {"prefix_seed_1.csv", "prefix_seed_2.csv", "settings.json"}
    told = series.report("prefix")
    series.measure(2, ["prefix"])
    assert (tmp_path / "prefix_seed_2.csv").stat().st_mtime_ns == made["prefix_seed_2.csv"]
    assert (tmp_path / "prefix.md").read_text() == told
    assert (tmp_path / "prefix.png").read_bytes().startswith(b"\x89PNG")

    rows = read_figures([tmp_path / "prefix_seed_1.csv"])
    arms = [(arm.name, condition) for arm, conditions in EXPERIMENTS["prefix"].items() for condition in conditions]
    assert [(row["arm"], row["condition"]) for row in rows] == [("chance", ""), *arms]
    assert [float(row["retrofit.samples"]) for row in rows] == [0, 20, 20, 0, 0]
    assert len({row["pretrain.samples"] for row in rows[1:]}) == 1
    assert float(rows[1]["same_group"]) == 1


def test_figures_of_another_budget_are_refused(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(FingerprintMismatch, match="figures of two settings"):
        Series(tmp_path, encoder, budget=SMALL).measure(1, ["names"])


def test_a_folder_without_a_vision_transformer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=CONFIG):
        Series(tmp_path / "out", tmp_path, budget=SMALL).measure(1, ["names"])


def test_an_interval_is_students_over_seeds() -> None:
    assert Mean.of([0.5]).half_width is None
    assert Mean.of([1.0, 2.0, 3.0]).half_width == pytest.approx(4.303 / 3**0.5)
    row = {"arm": "a", "condition": "b", "same_group": "", "scores.old_name": "", "scores.copied": "0.25"}
    rows = [row | {f"scores.{each}": value for each in ("name", "number", "colour", "loss")} for value in ("0.5", "1")]
    assert "| a | b | 75.0 ± 317.6 | 75.0 ± 317.6 | 75.0 ± 317.6 | 0.750 ± 3.176 |  | 25.0 ± 0.0 |  |" in table(rows)


def test_the_demos_vision_transformer_is_one_that_the_model_reads(tmp_path: Path) -> None:
    from demo.contrastive import train

    text = {"width": 32, "text_layers": 1, "text_heads": 2, "context": 16}
    recipe = EncoderRecipe(steps=1, batch=2, image_px=32, threads=1, vit=VitRecipe(width=64, layers=1), **text)
    (tmp_path / CONFIG).write_text(json.dumps(recipe.open_clip_config()))
    trained = train(recipe, tmp_path / CONFIG)
    trained.save(tmp_path / WEIGHTS)
    tower = read_weights(config_of(tmp_path / CONFIG), tmp_path / WEIGHTS)
    assert torch.equal(tower.conv1.weight, trained.towers.model.visual.conv1.weight)
    assert tower.config.mean == (0.5, 0.5, 0.5)


def test_the_residual_network_keeps_the_settings_that_its_runs_were_made_with() -> None:
    assert "vit" not in TrainEncoder(EncoderRecipe()).settings()
    assert TrainEncoder(EncoderRecipe(vit=VitRecipe())).settings()["vit"] == {"patch_px": 8, "width": 128, "layers": 3}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_only_a_model_with_a_database_tells_names(encoder: Path) -> None:
    lab = Lab(Setting(1, Budget(pretrain=Course(updates=60, batch=32)), encoder))
    measured = [*lab.of(NONE, ["nowhere"]), *lab.of(CROSS, ["database", "redrawn database"])]
    scores = {(each.arm, each.condition): each.scores for each in measured}
    assert scores["none", "nowhere"].name < 0.08
    assert scores["cross", "database"].name > 0.9
    assert scores["cross", "redrawn database"].name > 0.9
