"""Whatever stands in the way of the first step is told before it, in words that name the way out, with exit code 2."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from jobs import train as job
from model.training import check
from model.training.patches import Patches, PatchesRecipe
from model.training.recipe import TrainRecipe
from model.training.start import configuration
from pipeline.recipe import Json
from tests.stages.index.corpora import finish
from tests.training.tiny import Scenes, Tiny, make_neighbors, write_encoder

Recipe = dict[str, Json]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the job as a person does → what it says on stderr. Nothing may have been written."""

    def run(recipe: Recipe, *overrides: str) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        assert job.main([str(path), *overrides]) == 2
        assert not Path(recipe["root"], recipe["stage"] or "language", "checkpoints").exists()
        told = capsys.readouterr()
        assert not told.out
        assert "Traceback" not in told.err
        return told.err.strip()

    return run


def source(recipe: Recipe) -> Recipe:
    """To be changed."""
    found: Recipe = recipe[recipe["stage"]]["sources"]["pairs"]
    return found


# ── the recipe ──


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["language.update=3"], "language.update is not a setting; did you mean language.updates?"),
        (["languages.updates=3"], "languages"),
        (["model.neighbours=3"], "model.neighbours is not a setting; did you mean model.neighbors?"),
        (["language.sources.pairs.batches=3"], "batches is not a setting"),
        (["language.precision=fp16"], "language.precision"),
        (["workers=0"], "allowed is a number ≥ 1, or [fewest, most]"),
        (["workers=[2, 1]"], "allowed is a number ≥ 1, or [fewest, most]"),
        (["stage=finetuning"], "stage"),
        (["language.sources={}"], "sources is empty; name one at least"),
        (["language.sources.pairs.samples=x"], "say either corpus or samples"),
        (["model.image_encoder={model: ViT-B-32}"], "say either model and weights, or root"),
        (["stage=null"], "say which stage to train: stage=… (the recipe has language)"),
        (["stage=pretrain"], "the recipe has no section pretrain; it has language"),
        (["model.preset=huge"], "preset 'huge' does not exist; there are nano, tiny, base"),
        (["model.vocab_size=5000"], "model.vocab_size"),
        (["seed=-1"], "seed: Input should be greater than or equal to 0"),
        (["sharding=fsdp"], "sharding=fsdp is for several processes: set engine=ray, or start the job by torchrun"),
    ],
)
def test_a_wrong_setting_is_named(
    overrides: list[str], message: str, tiny: Tiny, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert message in refused(tiny.recipe(tmp_path / "root", "language"), *overrides)


def test_retrofit_is_refused_for_a_model_without_retrieval(
    tiny: Tiny, tmp_path: Path, refused: Callable[..., str]
) -> None:
    told = refused(tiny.recipe(tmp_path / "root", "retrofit"), "model.mode=none")
    assert told == (
        "retrofit trains layers that model.mode=cross alone has, and it is none: after language comes stage=pretrain"
    )


def test_a_relative_root_is_refused_on_a_cluster(
    tiny: Tiny, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under `ray job submit`, where a job runs in a folder that goes with it."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.chdir(tmp_path)
    told = refused(tiny.recipe("runs/train", "language"))
    assert "root: is relative, and a cluster job runs in a temporary folder: give /… or, where one is" in told
    told = refused(tiny.recipe(tmp_path / "root", "retrofit"), "model.language_model=gpt2", "watch=runs")
    assert "model.language_model: is relative" in told
    assert "watch: is relative" in told


# ── the stage before ──


@pytest.mark.parametrize(
    ("stage", "needed"), [("retrofit", "language"), ("pretrain", "retrofit"), ("finetune", "pretrain")]
)
def test_a_stage_without_the_result_that_it_begins_with_is_refused(
    stage: str, needed: str, tiny: Tiny, tmp_path: Path, refused: Callable[..., str]
) -> None:
    root = tmp_path / "root"
    told = refused(tiny.recipe(root, stage))
    assert told.startswith(f"{stage} begins with the result of {needed}. {root}/{needed} is not finished")
    assert ("model.language_model" in told) == (needed == "language")


def test_a_stage_before_that_is_not_finished_is_no_beginning(
    tiny: Tiny, chain: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(chain / "language", root / "language")
    (root / "language" / "finished.json").unlink()
    assert "run its stage of jobs/train.py to the end first" in refused(tiny.recipe(root, "retrofit"))


def test_a_folder_that_holds_no_language_model_is_refused(
    tiny: Tiny, tmp_path: Path, refused: Callable[..., str]
) -> None:
    told = refused(tiny.recipe(tmp_path / "root", "retrofit"), f"model.language_model={tmp_path / 'nothing'}")
    assert str(tmp_path / "nothing") in told


def test_a_result_of_another_mode_or_depth_is_no_beginning_of_finetune(
    tiny: Tiny, chain: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    recipe = tiny.recipe(tmp_path / "root", "finetune", start=str(chain))
    assert refused(recipe, "model.mode=none") == (
        "model: the result of pretrain has model.mode=cross, and the recipe none"
    )
    assert "preset tiny 4: take the preset of the language model" in refused(recipe, "model.preset=tiny")


# ── data ──


def test_a_share_that_holds_nothing_out_is_refused(tiny: Tiny, tmp_path: Path, refused: Callable[..., str]) -> None:
    told = refused(tiny.recipe(tmp_path / "root", "language"), "held_out.share=0.00001")
    assert told.startswith("held_out.share=1e-05 leaves no sample of source pairs to evaluate on")


def test_neighbors_of_another_corpus_are_refused(tiny: Tiny, tmp_path: Path, refused: Callable[..., str]) -> None:
    other = finish(tmp_path / "other", [replace(tiny.scenes, seed=9)])
    recipe = tiny.recipe(tmp_path / "root", "language")
    source(recipe)["neighbors"] = make_neighbors(tmp_path / "others", other)
    told = refused(recipe)
    assert told.startswith(f"the neighbours in {tmp_path / 'others'} are of another corpus: its identity is ")
    assert "jobs/precompute_neighbors.py" in told


def test_more_neighbors_than_are_stored_are_refused(
    tiny: Tiny, chain: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    told = refused(tiny.recipe(tmp_path / "root", "retrofit", start=str(chain)), "model.neighbors=4")
    stored = tiny.root("neighbors")
    assert told == (
        f"model.neighbors is 4, and {stored} holds 3 a pair: ask for 3 at most, or make neighbours with neighbors.k=4"
    )


def test_retrofit_without_neighbors_is_refused(
    tiny: Tiny, chain: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    recipe = tiny.recipe(tmp_path / "root", "retrofit", start=str(chain))
    del source(recipe)["neighbors"]
    assert "names no neighbors; give the root that holds them" in refused(recipe)


def test_a_root_that_is_a_file_is_refused(tiny: Tiny, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "file").touch()
    assert "is to lie below a file; a root is a folder" in refused(tiny.recipe(tmp_path / "file", "language"))


def test_a_corpus_that_is_not_there_is_refused(tiny: Tiny, tmp_path: Path, refused: Callable[..., str]) -> None:
    recipe = tiny.recipe(tmp_path / "root", "language")
    source(recipe)["corpus"] = str(tmp_path / "nowhere")
    assert "nowhere/corpus is not whole" in refused(recipe)


def test_a_source_without_samples_is_refused(pretrain: Recipe, tmp_path: Path, refused: Callable[..., str]) -> None:
    pretrain["pretrain"]["sources"]["none"] = {"corpus": finish(tmp_path / "empty", [Scenes(rows=0, shards=1)])}
    assert refused(pretrain, "model.mode=none") == "source none has no samples"


# ── pictures ──


@pytest.fixture
def pretrain(tiny: Tiny, chain: Path, tmp_path: Path) -> Recipe:
    return tiny.recipe(tmp_path / "root", "pretrain", start=str(chain))


def test_a_picture_size_that_the_image_encoder_cannot_take_is_refused(
    pretrain: Recipe, tiny: Tiny, chain: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    told = refused(pretrain, "model.image_encoder.image_size=40")
    assert "40" in told
    assert "16" in told  # its patch
    finetune = tiny.recipe(tmp_path / "root", "finetune", start=str(chain))
    assert "40" in refused(finetune, "finetune.image_size=40")
    assert "belongs to finetune" in refused(pretrain, "pretrain.image_size=48")


def test_pretrain_without_an_image_encoder_is_refused(pretrain: Recipe, refused: Callable[..., str]) -> None:
    told = refused(pretrain, "model.image_encoder=null")
    assert told == "pretrain needs model.image_encoder: model and weights of open_clip, or the root of a run"


def test_weights_of_an_image_encoder_that_are_not_there_are_named(
    pretrain: Recipe, tmp_path: Path, refused: Callable[..., str]
) -> None:
    told = refused(pretrain, f"model.image_encoder.weights={tmp_path / 'gone.safetensors'}")
    assert told == f"{tmp_path / 'gone.safetensors'} is not there; allowed is a .safetensors file of open_clip's CLIP"


def test_an_image_encoder_of_no_known_name_is_refused(pretrain: Recipe, refused: Callable[..., str]) -> None:
    assert "did you mean ViT-B-32" in refused(pretrain, "model.image_encoder.model=ViT-B32")


def test_weights_that_do_not_fit_the_image_encoder_are_refused_by_tensor(
    pretrain: Recipe, refused: Callable[..., str]
) -> None:
    told = refused(pretrain, "model.image_encoder.model=ViT-B-32")
    assert "visual.conv1.weight is" in told


def test_a_run_without_an_encoder_is_refused(pretrain: Recipe, tiny: Tiny, refused: Callable[..., str]) -> None:
    pretrain["model"]["image_encoder"] = {"root": tiny.root("corpus")}
    assert "encoder is not whole" in refused(pretrain)


# ── room ──


def test_a_recipe_that_does_not_fit_memory_is_refused_with_the_estimate(
    tiny: Tiny, tmp_path: Path, refused: Callable[..., str]
) -> None:
    recipe = tiny.recipe(tmp_path / "root", "language", micro_batch=10_000_000)
    told = refused(recipe)
    assert told.startswith("language needs about ")
    assert "GiB a worker (0.0 GiB of weights, gradients and moments; the rest is activations, by estimate)" in told
    assert "Lower language.micro_batch" in told


def test_workers_on_one_machine_share_its_memory(tiny: Tiny, tmp_path: Path, refused: Callable[..., str]) -> None:
    recipe = tiny.recipe(tmp_path / "root", "language")
    assert "this machine's share for one of 100000 has" in refused(recipe, "workers=100000")


def test_a_disk_without_room_for_the_checkpoints_is_refused(
    tiny: Tiny, tmp_path: Path, refused: Callable[..., str]
) -> None:
    told = refused(tiny.recipe(tmp_path / "root", "language", keep=10_000_000))
    assert "bytes free, and 10000002 checkpoints of about" in told
    assert "Lower keep, or take another root" in told


# ── patches ──


def test_finetune_on_patches_is_refused(tiny: Tiny, chain: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    recipe = tiny.recipe(tmp_path / "root", "finetune", start=str(chain))
    source(recipe)["patches"] = [str(tmp_path / "patches")]
    assert refused(recipe) == "finetune trains the image encoder, so it needs the pictures: name no patches"


def cache_patches(root: Path, corpus: str, encoder: Recipe) -> str:
    recipe = PatchesRecipe.model_validate({**encoder, "cpus": 1, "device": "cpu"})
    return finish(root, [Patches.of(recipe, corpus)])


def test_patches_of_another_encoder_or_corpus_are_refused(
    tiny: Tiny, chain: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    write_encoder(tmp_path / "other", seed=8)
    finish(tmp_path / "corpus", [replace(tiny.scenes, seed=6)])
    other = {
        "model": str(tmp_path / "other/open_clip_config.json"),
        "weights": str(tmp_path / "other/clip.safetensors"),
    }
    described = json.loads(Path(tiny.encoder["model"]).read_text()) | {"preprocess_cfg": {"mean": 0.1}}
    (tmp_path / "other/brighter.json").write_text(json.dumps(described))
    brighter = tiny.encoder | {"model": str(tmp_path / "other/brighter.json")}
    recipe = tiny.recipe(tmp_path / "root", "pretrain", start=str(chain))
    for name, corpus, encoder, message in (
        ("other_weights", tiny.root("corpus"), other, "an image encoder of other weights"),
        ("other_size", tiny.root("corpus"), tiny.encoder | {"image_size": 48}, "image_size was 48 and is 32"),
        ("other_mean", tiny.root("corpus"), brighter, "another image encoder: mean was"),
        ("other_corpus", str(tmp_path / "corpus"), tiny.encoder, "hold no patch tokens of the corpora"),
    ):
        source(recipe)["patches"] = [cache_patches(tmp_path / name, corpus, encoder)]
        assert message in refused(recipe)


def test_the_estimate_grows_with_what_it_counts(tiny: Tiny, tmp_path: Path) -> None:
    def estimate(**section: Json) -> float:
        recipe = TrainRecipe.model_validate(tiny.recipe(tmp_path, "language", **section))
        return check.activation_bytes(recipe, configuration(recipe))

    usual = estimate(micro_batch=8)
    assert estimate(micro_batch=16) == pytest.approx(2 * usual)
    assert usual / 2 < estimate(micro_batch=8, precision="bf16") < usual  # losses stay float32
    assert estimate(micro_batch=8, recompute="layers") < usual
    assert estimate(micro_batch=8, text_tokens=48) > usual


def test_the_estimate_counts_neighbors_where_they_stand_in_the_row(tiny: Tiny, chain: Path, tmp_path: Path) -> None:
    def estimate(mode: str) -> float:
        given = tiny.recipe(tmp_path, "pretrain", start=str(chain))
        given["model"]["mode"] = mode
        recipe = TrainRecipe.model_validate(given)
        return check.activation_bytes(recipe, configuration(recipe))

    assert estimate("prefix") > 2 * estimate("none")
