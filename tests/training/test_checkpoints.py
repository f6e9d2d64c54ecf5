"""A checkpoint is whole or not there, whenever its writer dies; the last and the best are kept; what is missing, cut
off or foreign is refused by name; frozen parts lie where they lay, by hash."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from model.checkpoint import from_pretrained, references_of, tensors_digest
from model.training.checkpoints import ALL_MADE, FINISHED, STATE, Checkpoints, Record, result_of
from pipeline.errors import InputError, PipelineError, RecipeError
from tests.s3 import make_bucket, reached_from_here, s3_server
from tests.training.killed import save
from tests.training.tiny import Tiny, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        make_bucket(url, "bucket")
        yield url


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path)
        return
    with reached_from_here(request.getfixturevalue("endpoint"), tmp_path / "cache"):
        yield f"s3://bucket/{tmp_path.name}"


def saved(folder: str, update: int, *, score: float | None = None, keep: int = 9) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    with checkpoints.writing(update, score) as made:
        (made / "model").mkdir()
        (made / "model" / "weights").write_bytes(b"weights %d" % update * 50)
        (made / STATE).write_text(json.dumps({"update": update}))
    checkpoints.prune(keep)
    return checkpoints


def kept(checkpoints: Checkpoints) -> list[int]:
    return [record.update for record in checkpoints.records()]


def files_of(checkpoints: Checkpoints, record: Record) -> dict[str, bytes]:
    with checkpoints.opened(record) as folder:
        return {entry.path: Path(folder, entry.path).read_bytes() for entry in record.files}


def due(update: int) -> dict[str, bytes]:
    """What killed.save writes."""
    names = ("model/deep/weights", "model/config", "optimizer")
    return {name: f"{name} {update}".encode() * 100 for name in names} | {
        STATE: json.dumps({"update": update}).encode()
    }


# ── whole or not at all ──


def test_killed_at_any_step_of_a_save_the_last_checkpoint_is_whole_and_the_next_save_clears_up(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.killed", "saves", str(tmp_path)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=120)
    roots = sorted(tmp_path.iterdir())
    assert len(roots) > 25
    latest = []
    for root in roots:
        checkpoints = Checkpoints(str(root))
        assert {10, 20} <= {*kept(checkpoints)} or 30 in kept(checkpoints)
        for record in checkpoints.records():
            assert files_of(checkpoints, record) == due(record.update)
        latest.append(kept(checkpoints)[-1])
        checkpoints.sweep()
        save(root, 40)
        assert kept(checkpoints) == [40]
        (record,) = checkpoints.records()
        named = {f"{record.folder}/{entry.path}" for entry in record.files} | {"checkpoints/00000040.json"}
        assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == named
        assert len([path for path in (root / "checkpoints").iterdir() if path.is_dir()]) == 1
    # At first the save is lost, from some step on it is there; the last one was let live.
    assert latest == sorted(latest)
    assert latest[0] == 20
    assert latest[-1] == 30
    assert latest.count(20) > 8
    assert latest.count(30) > 8


def test_an_error_while_it_is_written_leaves_no_checkpoint_and_nothing_else(folder: str) -> None:
    checkpoints = saved(folder, 1)

    def fail() -> None:
        with checkpoints.writing(2) as made:
            (made / "weights").write_bytes(b"half")
            raise KeyError("a fault of the writer")

    with pytest.raises(KeyError):
        fail()
    assert kept(checkpoints) == [1]
    assert kept(saved(folder, 2)) == [1, 2]


def test_files_that_no_record_names_go_with_the_next_checkpoint(folder: str) -> None:
    checkpoints = saved(folder, 1)
    checkpoints._store.create("checkpoints/00000002-dead/model/weights", b"left behind")
    saved(folder, 3)
    (first, last) = checkpoints.records()
    names = {f"{record.folder}/{entry.path}" for record in (first, last) for entry in record.files}
    records = {f"checkpoints/{record.update:08d}.json" for record in (first, last)}
    assert {f"checkpoints/{name}" for name in checkpoints._store.list("checkpoints")} == names | records


def test_a_record_that_a_power_cut_emptied_is_none_and_can_be_written_again(tmp_path: Path) -> None:
    checkpoints = saved(str(tmp_path), 1)
    Path(tmp_path, "checkpoints", "00000002.json").touch()
    assert kept(checkpoints) == [1]
    checkpoints.sweep()
    assert kept(saved(str(tmp_path), 2)) == [1, 2]


def test_a_second_training_in_the_same_folder_is_told(folder: str) -> None:
    saved(folder, 1)
    with pytest.raises(PipelineError, match=r"00000001.json is there already: another training is at work"):
        saved(folder, 1)


def test_a_second_training_that_sweeps_leaves_no_empty_checkpoint(tmp_path: Path) -> None:
    checkpoints = saved(str(tmp_path), 1)

    def write() -> None:
        with checkpoints.writing(2) as made:
            (made / "weights").write_bytes(b"whole")
            Checkpoints(str(tmp_path)).sweep()

    with pytest.raises(PipelineError, match="swept away: another training is at work"):
        write()
    assert kept(checkpoints) == [1]


# ── which are kept ──


def test_the_last_ones_and_the_best_are_kept(folder: str) -> None:
    scores = {1: 0.9, 2: 0.3, 3: 0.5, 4: None, 5: 0.4, 6: 0.8}
    checkpoints = Checkpoints(folder)
    assert (checkpoints.latest(), checkpoints.best(), kept(checkpoints)) == (None, None, [])
    for update, score in scores.items():
        saved(folder, update, score=score, keep=2)
    assert kept(checkpoints) == [2, 5, 6]
    latest, best = checkpoints.latest(), checkpoints.best()
    assert latest is not None
    assert best is not None
    assert (latest.update, best.update) == (6, 2)
    assert checkpoints.state(best) == {"update": 2}


def test_a_result_outlasts_whatever_is_trained_after_it(folder: str) -> None:
    """Later stages refer to its frozen parts."""
    checkpoints = saved(folder, 1)
    checkpoints.finish(1, ALL_MADE)
    checkpoints._store.delete([FINISHED])
    for update in (2, 3, 4):
        saved(folder, update, keep=1)
    assert kept(checkpoints) == [1, 4]


def test_a_result_is_what_a_finished_stage_says(folder: str) -> None:
    checkpoints = saved(folder, 1)
    saved(folder, 2)
    with pytest.raises(InputError, match=r"is not finished \(no finished.json\): run its stage of jobs/train.py"):
        result_of(folder)
    checkpoints.finish(1, ALL_MADE)
    assert result_of(folder)[1].update == 1
    checkpoints._store.delete(["checkpoints/00000001.json"])
    with pytest.raises(InputError, match="names checkpoint 1, which is not there any more"):
        result_of(folder)


# ── strict ──


def test_a_file_that_is_missing_cut_off_or_another_is_refused_by_name(folder: str) -> None:
    checkpoints = saved(folder, 7)
    (record,) = checkpoints.records()
    path = f"{record.folder}/model/weights"
    whole = checkpoints._store.read(path)
    way_out = "delete checkpoints/00000007.json to go on from the one before it"
    for changed, said in (
        (whole[:-1], f"{path} has {len(whole) - 1} bytes instead of {len(whole)}: {way_out}"),
        (whole[:-1] + b"!", f"{path} is another file than the one that was written: {way_out}"),
        (None, f"{path} is missing: {way_out}"),
    ):
        checkpoints._store.delete([path])
        if changed is not None:
            checkpoints._store.create(path, changed)
        with pytest.raises(InputError, match=said), checkpoints.opened(record):
            pass
        assert checkpoints.state(record) == {"update": 7}  # what is not asked for is in nobody's way
    checkpoints._store.create(path, whole)
    assert files_of(checkpoints, record)["model/weights"] == whole


def test_of_a_checkpoint_on_an_object_store_only_what_is_asked_for_is_fetched(endpoint: str, tmp_path: Path) -> None:
    with reached_from_here(endpoint, tmp_path / "cache"):
        checkpoints = saved("s3://bucket/fetched", 1)
        (record,) = checkpoints.records()
        with checkpoints.opened(record, "model/") as folder:
            assert [path.name for path in folder.rglob("*") if path.is_file()] == ["weights"]


def test_too_small_a_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "not" / "yet" / "there"))
    free = shutil.disk_usage(tmp_path).free
    checkpoints.refuse_small_disk(free // 8, 2)
    with pytest.raises(RecipeError, match=r"bytes free, and 4 checkpoints of about .* bytes need .* more. Lower keep"):
        checkpoints.refuse_small_disk(free // 3, 3)
    assert not (tmp_path / "not").exists()


def test_what_a_resumed_stage_stored_already_needs_no_room_again(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    checkpoints = saved(str(tmp_path), 1)
    with pytest.raises(RecipeError, match="Lower keep"):
        checkpoints.refuse_small_disk(free // 3, 3)
    (record,) = checkpoints.records()
    (first, *_) = record.files
    large = record.model_copy(update={"update": 2, "files": (first.model_copy(update={"bytes": free}),)})
    checkpoints._store.create("checkpoints/00000002.json", large.model_dump_json().encode())
    checkpoints.refuse_small_disk(free // 3, 3)


# ── frozen parts ──


def model_of(root: Path, stage: str) -> Path:
    checkpoints, record = result_of(f"{root}/{stage}")
    with checkpoints.opened(record) as folder:
        return folder / "model"


def test_frozen_parts_are_stored_once_by_reference_and_hash(chain: Path) -> None:
    expected = {
        "language": set(),
        "retrofit": {"language_model"},
        "pretrain": {"language_model", "image_encoder", "text_encoder", "retrieval_cross_attention"},
        "finetune": set(),
    }
    for stage, parts in expected.items():
        folder = model_of(chain, stage)
        read = from_pretrained(folder).model
        references = references_of(folder)
        assert references.keys() == parts
        assert {part: tensors_digest(read.get_submodule(part)) for part in parts} == {
            part: reference.sha256 for part, reference in references.items()
        }
        stored = {name.split(".")[0] for name in load_file(folder / "model.safetensors")}
        assert stored.isdisjoint(parts)
    # What pretrain left alone is what the stages before it made.
    language, retrofit, pretrain = (
        from_pretrained(model_of(chain, stage)).model for stage in ("language", "retrofit", "pretrain")
    )
    assert tensors_digest(pretrain.language_model) == tensors_digest(language.language_model)
    assert tensors_digest(pretrain.retrieval_cross_attention) == tensors_digest(retrofit.retrieval_cross_attention)


def test_a_frozen_part_that_is_stored_again_is_not_narrowed_by_bf16(chain: Path, tiny: Tiny, tmp_path: Path) -> None:
    """As on an object store, to which no checkpoint refers."""
    root = f"file://{tmp_path}"
    train(tiny.recipe(root, "retrofit", start=f"file://{chain}", updates=1, precision="bf16"))
    assert not references_of(model_of(tmp_path, "retrofit"))
    made, due = (
        tensors_digest(from_pretrained(model_of(*place)).model.language_model)
        for place in ((tmp_path, "retrofit"), (chain, "language"))
    )
    assert made == due


def test_a_root_with_its_stages_can_be_moved(chain: Path, tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(chain, tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "behind")
    for stage in ("retrofit", "pretrain"):
        places = {reference.place for reference in references_of(model_of(tmp_path / "behind", stage)).values()}
        assert all(place.startswith((str(tmp_path / "behind"), str(tiny.folder))) for place in places)
    shutil.rmtree(tmp_path / "behind" / "finetune")
    told = train(tiny.recipe(tmp_path / "behind", "finetune"))
    assert "finetune: all updates are made" in told
    digests = [
        tensors_digest(from_pretrained(model_of(root, "finetune")).model) for root in (chain, tmp_path / "behind")
    ]
    assert digests[0] == digests[1]


def test_a_frozen_part_that_was_changed_is_refused_by_its_hash(chain: Path, tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(chain, tmp_path / "changed")
    shutil.rmtree(tmp_path / "changed" / "finetune")
    weights = model_of(tmp_path / "changed", "language") / "model.safetensors"
    tensors = load_file(weights)
    name = next(
        name for name, tensor in tensors.items() if name.startswith("language_model.blocks") and tensor.dim() > 1
    )
    tensors[name][0, 0] += 1
    save_file(tensors, weights)
    with pytest.raises(
        InputError, match=r"language_model: .* holds weights of sha256 [0-9a-f]{64}, the checkpoint's are"
    ):
        train(tiny.recipe(tmp_path / "changed", "finetune"))
    assert not (tmp_path / "changed" / "finetune" / "checkpoints").exists()


def test_stages_follow_on_each_other_on_an_object_store(endpoint: str, tiny: Tiny, tmp_path: Path) -> None:
    """What cannot be referred to there is stored again; files of this machine stay references."""
    with reached_from_here(endpoint, tmp_path / "cache"):
        for stage in ("language", "retrofit", "pretrain"):
            recipe = tiny.recipe("s3://bucket/run", stage, updates=2)
            train(recipe | {"watch": str(tmp_path / "watch")})
        checkpoints, record = result_of("s3://bucket/run/pretrain")
        with checkpoints.opened(record) as folder:
            read = from_pretrained(folder / "model")
            assert references_of(folder / "model").keys() == {"image_encoder"}
        assert not read.new_parts
    assert (tmp_path / "watch" / "pretrain" / "updates.jsonl").exists()
