"""A stage comes to the same result however often it is killed; stages follow on each other; a resume of something else
is refused; and what a stage came to is told in words."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from model.checkpoint import from_pretrained
from model.training.checkpoints import Checkpoints, result_of
from model.training.loop import NotFinite
from model.training.recipe import STAGES, TrainRecipe
from pipeline.errors import FingerprintMismatch, InputError, RecipeError
from pipeline.recipe import Json
from tests.training.tiny import Tiny, make_neighbors, result, train, updates_told

ROOT = Path(__file__).parents[2]
UPDATES = 12  # more than the nine of an epoch


def interrupted(tiny: Tiny, root: Path, chain: Path) -> dict[str, Json]:
    """Text with dropout, so that what is drawn within an update counts too."""
    given = {"updates": UPDATES, "checkpoint_every": 4, "evaluate_every": 6, "start": str(chain)}
    recipe = tiny.recipe(root, "retrofit", **given)
    recipe["model"]["neighbor_token_dropout"] = 0.2
    return recipe


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny, chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    train(interrupted(tiny, root, chain))
    return root


def written(recipe: dict[str, Json], path: Path) -> Path:
    path.write_text(yaml.safe_dump(recipe))
    return path


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def same(one: Path, other: Path) -> None:
    """Weights, moments, where training stands, and the history of updates and evaluations, bit for bit."""
    made, due = result(one, "retrofit"), result(other, "retrofit")
    assert made.keys() == due.keys()
    assert {"model/model.safetensors", "optimizer.safetensors", "state.json"} <= made.keys()
    # The model's configuration says where its language model lies, which is another way from another root.
    assert [name for name in due if made[name] != due[name] and name != "model/config.json"] == []
    told = updates_told(one, "retrofit")
    assert told == updates_told(other, "retrofit")
    assert [line["update"] for line in told if "losses" in line] == list(range(1, UPDATES + 1))
    assert [line["update"] for line in told if "evaluation" in line] == [6, 12]
    assert all(line["flops"] > 0 for line in told if "losses" in line)


# ── killed and resumed ──


def test_killed_in_the_middle_of_an_epoch_and_resumed_it_comes_to_the_same(
    tiny: Tiny, chain: Path, undisturbed: Path, tmp_path: Path
) -> None:
    recipe = interrupted(tiny, tmp_path, chain)
    lines = tmp_path / "retrofit" / "watch" / "updates.jsonl"
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), str(written(recipe, tmp_path / "recipe.yaml"))]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while not lines.exists() or lines.read_bytes().count(b"\n") < 5:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.kill()
        process.communicate()
    latest = Checkpoints(f"{tmp_path}/retrofit").latest()
    assert latest is not None
    assert 4 <= latest.update < UPDATES
    assert "all updates are made" in train(recipe)
    same(tmp_path, undisturbed)


def test_killed_in_the_midst_of_saves_again_and_again_it_comes_to_the_same(
    tiny: Tiny, chain: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """While its files are made, between two that are moved, and when all that is missing is the record."""
    recipe = written(interrupted(tiny, tmp_path, chain), tmp_path / "recipe.yaml")
    steps = [
        "os.rename:config.json.tmp:0",
        "os.rename:optimizer.safetensors:1",
        "os.rename:state.json:0",
        "os.link::1",
    ]
    command = [sys.executable, "-m", "tests.training.killed", "stage", str(recipe), *steps]
    subprocess.run(command, env=environment(), check=True, timeout=200)
    same(tmp_path, undisturbed)
    assert not (tmp_path / "retrofit" / "tmp").exists() or not any((tmp_path / "retrofit" / "tmp").iterdir())


def test_a_finished_stage_does_nothing_and_tells_the_same(chain: Path, tiny: Tiny) -> None:
    def everything() -> dict[str, tuple[int, int]]:
        files = [path for path in chain.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}

    before = everything()
    told = [train(tiny.recipe(chain, "pretrain")) for _ in range(2)]
    assert told[0] == told[1]
    assert told[0].startswith("pretrain: all updates are made; its result is update 4\n")
    assert everything() == before
    more = train(tiny.recipe(chain, "pretrain", updates=8))
    assert f"\nFor the 8 updates of the recipe, remove {chain}/pretrain/finished.json first" in more


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("retrofit", {"learning_rate": 2e-3}, r"retrofit.learning_rate was 0.001 and is 0.002"),
        ("model", {"neighbors": 1}, r"model.neighbors was 2 and is 1"),
        ("held_out", {"share": 0.2}, r"held_out was 0.15 and is 0.2"),
        ("source", {"batch": 4}, r"sources.pairs.batch was 8 and is 4"),
    ],
)
def test_a_resume_with_another_recipe_is_refused_by_the_field_and_both_values(
    section: str, change: dict[str, Json], message: str, chain: Path, tiny: Tiny
) -> None:
    recipe = tiny.recipe(chain, "retrofit")
    place = recipe["retrofit"]["sources"]["pairs"] if section == "source" else recipe[section]
    place.update(change)
    with pytest.raises(FingerprintMismatch, match=message):
        train(recipe)


def test_a_resume_with_other_data_is_refused(chain: Path, tiny: Tiny, tmp_path: Path) -> None:
    other = make_neighbors(tmp_path / "other", tiny.root("corpus"), k=2)
    recipe = tiny.recipe(chain, "retrofit")
    recipe["retrofit"]["sources"]["pairs"]["neighbors"] = other
    with pytest.raises(FingerprintMismatch, match=r"sources.pairs.data.neighbors was '[0-9a-f]+' and is '[0-9a-f]+'"):
        train(recipe)


def test_a_resume_with_another_mean_of_the_pictures_is_refused(chain: Path, tiny: Tiny, tmp_path: Path) -> None:
    """The weights are the same."""
    described = json.loads(Path(tiny.encoder["model"]).read_text()) | {"preprocess_cfg": {"mean": 0.1}}
    (tmp_path / "brighter.json").write_text(json.dumps(described))
    recipe = tiny.recipe(chain, "pretrain")
    recipe["model"]["image_encoder"] = tiny.encoder | {"model": str(tmp_path / "brighter.json")}
    with pytest.raises(FingerprintMismatch, match=r"start.image_encoder_config was '[0-9a-f]+' and is '[0-9a-f]+'"):
        train(recipe)


def test_a_resume_without_a_frozen_part_that_it_refers_to_names_it(tiny: Tiny, chain: Path, tmp_path: Path) -> None:
    weights = tmp_path / "clip.safetensors"
    weights.write_bytes(Path(tiny.encoder["weights"]).read_bytes())
    recipe = tiny.recipe(tmp_path / "root", "pretrain", start=str(chain), updates=1)
    recipe["model"]["image_encoder"] = tiny.encoder | {"weights": str(weights)}
    train(recipe)
    (tmp_path / "root/pretrain/finished.json").unlink()
    weights.rename(tmp_path / "moved.safetensors")
    recipe["model"]["image_encoder"]["weights"] = str(tmp_path / "moved.safetensors")
    with pytest.raises(InputError, match=f"image_encoder: {weights} is missing"):
        train(recipe)


def test_what_changes_no_result_may_change(chain: Path, tiny: Tiny) -> None:
    recipe = tiny.recipe(chain, "retrofit", micro_batch=4, checkpoint_every=1)
    assert "retrofit: all updates are made" in train(recipe | {"processes": 2, "failures": 0})


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_batches_of_a_loss_that_is_not_finite_are_kept(scheme: str, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match="update 2: "):
        train(tiny.recipe(f"{scheme}{tmp_path}", "language", learning_rate=1e30, warm_up=0))
    folder = tmp_path / "language" / "not_finite" / "rank_0"
    assert "0.pairs.tokens" in load_file(folder / "not_finite_00000002.safetensors")
    assert len(json.loads((folder / "not_finite_00000002.json").read_text())["pairs"]) > 0


# ── one after the other ──


def test_each_stage_trains_what_it_should_and_nothing_else(chain: Path) -> None:
    read: dict[str, dict[str, torch.Tensor]] = {
        stage: from_pretrained(model_of(chain, stage)).model.state_dict() for stage in STAGES
    }

    def changed(stage: str, before: str) -> set[str]:
        shared = read[stage].keys() & read[before].keys()
        return {name.split(".")[0] for name in shared if not torch.equal(read[stage][name], read[before][name])}

    assert not changed("retrofit", "language") - {"special_tokens"}
    assert not changed("pretrain", "retrofit") & {"language_model", "text_encoder", "retrieval_cross_attention"}
    assert changed("finetune", "pretrain") >= {
        "language_model",
        "image_encoder",
        "resampler",
        "gated_cross_attention",
        "text_encoder",
        "retrieval_cross_attention",
    }
    moments = {
        stage: {name.split(".")[1] for name in load_file(model_of(chain, stage).parent / "optimizer.safetensors")}
        for stage in STAGES
    }
    assert moments["retrofit"] >= {"text_encoder", "retrieval_cross_attention"}
    assert moments["retrofit"].isdisjoint({"language_model"})
    assert moments["pretrain"] >= {"resampler", "gated_cross_attention"}
    assert moments["pretrain"].isdisjoint({"language_model", "image_encoder", "retrieval_cross_attention"})


def model_of(root: Path, stage: str) -> Path:
    checkpoints, record = result_of(f"{root}/{stage}")
    with checkpoints.opened(record) as folder:
        return folder / "model"


def test_pretrain_learns_from_pairs_and_five_pairs_at_once(tiny: Tiny, chain: Path, tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, "pretrain", start=str(chain), updates=2)
    recipe["pretrain"]["sources"]["fives"] = {"samples": tiny.root("samples"), "batch": 4, "weight": 0.5}
    train(recipe)
    for line in updates_told(tmp_path, "pretrain"):
        if "losses" in line:
            assert line["losses"].keys() == {"pairs", "fives"}
            assert line["samples"] + sum(line["skipped"].values()) == 12


def test_finetune_at_a_higher_resolution_begins_with_the_same_weights(tiny: Tiny, chain: Path, tmp_path: Path) -> None:
    train(tiny.recipe(tmp_path, "finetune", start=str(chain), updates=1, image_size=48))
    config = from_pretrained(model_of(tmp_path, "finetune")).model.config
    assert config.vision is not None
    assert config.vision.encoder.image_size == 48


@pytest.mark.parametrize("mode", ["none", "prefix"])
def test_other_modes_begin_with_the_language_model(mode: str, tiny: Tiny, chain: Path, tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, "pretrain", start=str(chain), updates=1)
    recipe["model"]["mode"] = mode
    assert "pretrain: all updates are made" in train(recipe)


def test_finetune_stops_when_captions_grow_no_better_and_gives_the_best(
    tiny: Tiny, chain: Path, tmp_path: Path
) -> None:
    given = {"updates": 40, "patience": 2, "evaluate_every": 2, "checkpoint_every": 100, "start": str(chain)}
    told = train(tiny.recipe(tmp_path, "finetune", **given))
    lines = updates_told(tmp_path, "finetune")
    scores = {line["update"]: line["evaluation"]["cider_d"] for line in lines if "evaluation" in line}
    best = max(scores, key=lambda update: (scores[update], -update))
    assert "finetune: no better any more" in told
    assert f"its result is update {best}, the best\n" in told
    assert max(scores) == best + 2 * 2 < 40
    # Ended between the two evaluations that are no better, and gone on with: the first of them counts.
    parts = tmp_path / "parts"
    assert "finished.json" not in train(tiny.recipe(parts, "finetune", **given | {"updates": best + 2}))
    (parts / "finetune" / "finished.json").unlink()
    assert told.splitlines()[0] == train(tiny.recipe(parts, "finetune", **given)).splitlines()[0]
    assert result(parts, "finetune") == result(tmp_path, "finetune")


# ── what is told ──


def test_behind_retrofit_its_gain_is_told_in_words_with_the_interval(chain: Path, tiny: Tiny) -> None:
    told = train(tiny.recipe(chain, "retrofit"))
    gain, low, high = figures_of(chain)["neighbor_empty"]
    sentence = f"Loss without neighbours minus loss: {gain:.4f} nats a token, 95 % interval {low:.4f} … {high:.4f}"
    assert told.splitlines()[-1].startswith(sentence)
    assert told.endswith("the neighbours help" if low > 0 else "no gain by neighbours is shown")


def figures_of(root: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads((model_of(root, "retrofit").parent / "state.json").read_text())[
        "figures"
    ]
    return found


@pytest.fixture(scope="module")
def without_gain(tiny: Tiny, chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retrofit that learned next to nothing."""
    root = tmp_path_factory.mktemp("without_gain")
    train(tiny.recipe(root, "retrofit", start=str(chain), updates=1, learning_rate=1e-12))
    return root


def test_pretrain_on_a_retrofit_without_gain_warns_and_names_the_way_out(
    without_gain: Path, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert figures_of(without_gain)["neighbor_empty"][1] <= 0
    train(tiny.recipe(tmp_path, "pretrain", start=str(without_gain), updates=1))
    (warning,) = [record for record in caplog.records if "pretrain begins with a retrofit" in record.message]
    assert warning.levelname == "WARNING"
    assert "shows no gain by neighbours" in warning.message
    assert "pretrain.train_retro=true" in warning.message


def test_no_warning_where_the_retrofit_gained_or_its_layers_are_trained(
    chain: Path, without_gain: Path, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert figures_of(chain)["neighbor_empty"][1] > 0
    train(tiny.recipe(chain, "pretrain"))
    train(tiny.recipe(tmp_path, "pretrain", start=str(without_gain), updates=1, train_retro=True))
    assert "begins with a retrofit" not in caplog.text


def test_patience_without_held_out_pairs_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, "finetune", patience=1) | {"held_out": {"share": 0}}
    with pytest.raises(ValueError, match=r"finetune.patience counts evaluations, and held_out.share is 0"):
        TrainRecipe.model_validate(recipe)


def test_retrofit_of_another_mode_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, "retrofit")
    recipe["model"]["mode"] = "prefix"
    with pytest.raises(RecipeError, match="layers that model.mode=cross alone has, and it is prefix"):
        train(recipe)
