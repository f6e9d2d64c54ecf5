"""Cached patch tokens are those of the pictures, row by row, and are not taken for those of another model or corpus."""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from model.checkpoint import tensors_digest
from model.config import ImageEncoderConfig
from model.image_encoder import ImageEncoder
from model.tokenizer import Tokenizer
from model.training.encoders import EncoderRecipe
from model.training.patches import Patches, PatchesRecipe, PatchReader
from model.training.pictures import decode
from pipeline.commits import Committed, Whole
from pipeline.errors import FingerprintMismatch, InputError, RecipeError
from pipeline.executor import LocalExecutor
from pipeline.parquet import read_table
from pipeline.run import Run
from stages.filter import CorpusReader, FilterRecipe
from tests.model.small_models import randomise
from tests.stages.filter.making import Made, Picture, filtered, in_shards

CONFIG = ImageEncoderConfig(
    image_size=32, patch_size=16, width=24, layers=1, heads=2, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25)
)
TOKENIZER = Tokenizer.train(["a dog on a beach", "two cats"], 260)
ROWS = 11


def jpeg(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (40 + number, 60, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


JPEGS = [jpeg(number) for number in range(ROWS)]


def corpus(root: Path, jpegs: Sequence[bytes]) -> str:
    """Of shards of four rows, its pictures in the tars of two others; → the root."""
    pairs = [Made(pair_id=f"cc3m-{number:010d}", picture=Picture(data)) for number, data in enumerate(jpegs)]
    return filtered(root, FilterRecipe(shard_rows=4), in_shards(pairs, 6))


def write_tower(folder: Path, encoder: ImageEncoder) -> PatchesRecipe:
    """Files as open_clip has them."""
    folder.mkdir(exist_ok=True)
    config = encoder.config
    vision = {"image_size": config.image_size, "patch_size": config.patch_size, "width": config.width}
    vision |= {"layers": config.layers, "head_width": config.width // config.heads}
    described = {"model_cfg": {"vision_cfg": vision}, "preprocess_cfg": {"mean": config.mean, "std": config.std}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    save_file({f"visual.{name}": tensor for name, tensor in encoder.state_dict().items()}, folder / "w.safetensors")
    model, weights = str(folder / "open_clip_config.json"), str(folder / "w.safetensors")
    return PatchesRecipe(model=model, weights=weights, batch_size=3, cpus=1, device="cpu")


def tower(seed: int = 0) -> ImageEncoder:
    encoder = ImageEncoder(CONFIG)
    randomise(encoder, seed)
    return encoder.eval()


def make(root: Path, stage: Patches) -> PatchReader:
    report = Run(str(root), [stage]).execute(LocalExecutor())
    assert report.exit_code == 0, [str(report), *report.failed.values()]
    return PatchReader(str(root))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return corpus(tmp_path_factory.mktemp("corpus"), JPEGS)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> PatchesRecipe:
    return write_tower(tmp_path_factory.mktemp("tower"), tower())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, root: str, recipe: PatchesRecipe) -> PatchReader:
    return make(tmp_path_factory.mktemp("patches"), Patches.of(recipe, root))


def shards(reader_root: Path | str) -> list[Committed]:
    whole = Whole.open(str(reader_root), "patches")
    return [whole.read(shard) for shard in whole.shards]


def patches(reader: PatchReader, row_id: int) -> Tensor:
    found = reader.patches(row_id)
    assert found is not None
    return found


@torch.no_grad()
def test_a_row_has_the_patch_tokens_of_its_picture(root: str, made: PatchReader) -> None:
    reader = CorpusReader(root)
    assert (made.rows, made.shape) == (ROWS, (4, 24))
    for row_id in (10, 0, 3, 4, 7, 5, 1, 9, 2, 8, 6):
        found = patches(made, row_id)
        due = tower()(decode(reader.picture(reader.row(row_id)), 32))
        assert (found.dtype, found.shape) == (torch.float16, (1, 4, 24))
        torch.testing.assert_close(found.float(), due, rtol=2**-10, atol=2**-10)


def test_a_row_is_in_memory_of_its_own(made: PatchReader) -> None:
    patches(made, 5).zero_()
    assert patches(made, 5).any()


@pytest.mark.parametrize("row_id", [-1, ROWS])
def test_a_row_that_the_corpus_has_not_is_no_row(made: PatchReader, row_id: int) -> None:
    with pytest.raises(IndexError, match=f"row id {row_id} is not in the corpus, which has 11 rows"):
        made.patches(row_id)


def test_an_unreadable_picture_is_a_reject_and_a_row_of_zeros(
    tmp_path: Path, recipe: PatchesRecipe, made: PatchReader
) -> None:
    spoilt = {0: b"no picture", 7: JPEGS[7][:-200], 10: b""}
    reader = CorpusReader(corpus(tmp_path / "corpus", [spoilt.get(n, JPEGS[n]) for n in range(ROWS)]))
    found = make(tmp_path / "patches", Patches.of(recipe, str(tmp_path / "corpus")))
    for row_id in range(ROWS):
        number = int(reader.row(row_id)["pair_id"][-10:])
        kept = found.patches(row_id)
        if number in spoilt:
            assert kept is None
        else:
            torch.testing.assert_close(kept, patches(made, row_id), rtol=0, atol=0)
    for shard in shards(tmp_path / "patches"):
        record, readable = shard.record, shard.array("readable")
        assert (record.rows_in, record.rows_out) == (len(readable), readable.sum())
        assert record.rejects == {"corrupt_image": len(readable) - readable.sum()}
        assert record.metrics["unreadable"] == len(readable) - readable.sum()
        assert not shard.array("patches")[~readable].any()
        assert record.rejects_file is not None
        with shard.folder.store.open(record.rejects_file.path) as file:
            rejected = read_table(file)["pair_id"].to_pylist()
        assert {int(pair_id[-10:]) for pair_id in rejected} < spoilt.keys()


def test_the_bytes_do_not_depend_on_the_number_of_decoders(tmp_path: Path, root: str, recipe: PatchesRecipe) -> None:
    for threads in (1, 5):
        stage = Patches.of(recipe.model_copy(update={"decode_threads": threads}), root)
        make(tmp_path / str(threads), stage)
    one, five = shards(tmp_path / "1"), shards(tmp_path / "5")
    assert [shard.identity for shard in one] == [shard.identity for shard in five]
    assert len(one) == 3


def test_patches_may_lie_in_the_root_of_their_corpus(tmp_path: Path, root: str, recipe: PatchesRecipe) -> None:
    shutil.copytree(root, tmp_path / "own")
    found = make(tmp_path / "own", Patches.of(recipe, str(tmp_path / "own")))
    assert found.corpus_identity == CorpusReader(root).identity


def test_weights_count_by_their_content_and_not_by_their_path(
    tmp_path: Path, root: str, recipe: PatchesRecipe, made: PatchReader
) -> None:
    moved, other = write_tower(tmp_path / "moved", tower()), write_tower(tmp_path / "other", tower(seed=1))
    make(tmp_path / "patches", Patches.of(recipe, root))
    make(tmp_path / "patches", Patches.of(moved, root))  # nothing is left to do
    with pytest.raises(FingerprintMismatch, match="weights is .* there and .* here"):
        make(tmp_path / "patches", Patches.of(other, root))
    assert made.tower == tensors_digest(tower())


def test_weights_that_change_while_a_run_waits_are_not_mixed_in(tmp_path: Path, root: str) -> None:
    stage = Patches.of(write_tower(tmp_path / "tower", tower()), root)
    write_tower(tmp_path / "tower", tower(seed=1))
    report = Run(str(tmp_path / "patches"), [stage]).execute(LocalExecutor())
    assert report.exit_code == 1
    assert "other weights than when the run began" in report.stopped


def test_a_reader_is_refused_where_nothing_was_made(root: str) -> None:
    with pytest.raises(InputError, match="patches is not whole"):
        PatchReader(root)


def test_an_encoder_that_cannot_be_had_is_said_before_anything_starts(tmp_path: Path, recipe: PatchesRecipe) -> None:
    for given, message in (
        ({"weights": Path("none.safetensors")}, "none.safetensors"),
        ({"model": "ViT-B32"}, "did you mean ViT-B-32"),
        ({"image_size": 40}, "40 px is no multiple of the patch of 16 px; take 32 or 48"),
    ):
        with pytest.raises(RecipeError, match=message):
            Patches.of(recipe.model_copy(update=given), str(tmp_path))


@pytest.mark.parametrize("given", [{}, {"weights": "w.safetensors"}, {"model": "ViT-B-32", "root": "runs/vit"}])
def test_an_encoder_is_of_open_clip_or_of_a_run(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="say either model and weights, or root"):
        EncoderRecipe(**given)
