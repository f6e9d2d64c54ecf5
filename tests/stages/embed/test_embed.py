"""Every pair whose picture can be read gets its vectors, in the download's order, and the others are rejects."""

import io
from pathlib import Path
from random import Random

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from pipeline.errors import RecipeError
from pipeline.recipe import load_recipe
from stages.embed import Embed, EmbedRecipe
from stages.embed.shard import mend_caption
from tests.stages.embed.pictures import TINY_RECIPE, Embedded, Pair, drawn_pairs, embed, jpeg_of

PAIRS = drawn_pairs(21)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    return embed(tmp_path_factory.mktemp("embedded"), PAIRS)


def test_rows_equal_one_pair_at_a_time_through_open_clip_itself(embedded: Embedded) -> None:
    (config,) = Path(embedded.root, "encoder").rglob("open_clip_config.json")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{config.parent}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{config.parent}")
    model.eval()
    for row, (jpeg, text) in enumerate(PAIRS):
        with torch.inference_mode():
            image = model.encode_image(transform(Image.open(io.BytesIO(jpeg)))[None], normalize=True)[0].numpy()
            caption = model.encode_text(tokenizer([text]), normalize=True)[0].numpy()
        np.testing.assert_allclose(embedded.shard.array("img_emb")[row], image, atol=2**-11)
        np.testing.assert_allclose(embedded.shard.array("text_emb")[row], caption, atol=2**-11)
        assert embedded.pairs[row]["clip_score"] == pytest.approx(float(image @ caption), abs=1e-6)
        assert embedded.pairs[row]["caption"] == text


def test_vectors_are_stored_as_float16_of_norm_1(embedded: Embedded) -> None:
    for name in ("img_emb", "text_emb"):
        vectors = embedded.shard.array(name)
        assert vectors.dtype == np.float16
        assert vectors.shape == (len(PAIRS), 24)
        np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-3)


def test_the_same_settings_give_the_same_bytes_with_any_number_of_decoders(embedded: Embedded, tmp_path: Path) -> None:
    again = embed(tmp_path, PAIRS, TINY_RECIPE.model_copy(update={"decode_threads": 5}))
    for name in ("pairs", "img_emb", "text_emb"):
        assert again.bytes_of(name) == embedded.bytes_of(name)


@pytest.mark.parametrize("batch_size", [1, 21, 64])
def test_the_size_of_a_batch_is_float_noise(embedded: Embedded, tmp_path: Path, batch_size: int) -> None:
    other = embed(tmp_path, PAIRS, TINY_RECIPE.model_copy(update={"batch_size": batch_size}))
    np.testing.assert_allclose(
        [row["clip_score"] for row in other.pairs], [row["clip_score"] for row in embedded.pairs], atol=1e-6
    )


def test_a_corrupt_picture_is_a_reject_and_its_neighbours_stay_as_they_are(embedded: Embedded, tmp_path: Path) -> None:
    pairs: list[Pair] = list(PAIRS)
    pairs[0] = (b"no picture", "words")
    pairs[7] = (PAIRS[7][0][:-200], "cut short")
    pairs[20] = (b"", "nothing")
    found = embed(tmp_path, pairs, sizes=[Image.open(io.BytesIO(jpeg)).size for jpeg, _ in PAIRS])
    kept = [row for row in range(len(PAIRS)) if row not in (0, 7, 20)]
    assert found.rejects == {f"toy-{row:010d}": "corrupt_image" for row in (0, 7, 20)}
    for ours, theirs in zip(found.pairs, (embedded.pairs[row] for row in kept), strict=True):
        assert ours == theirs | {"clip_score": pytest.approx(theirs["clip_score"], abs=1e-6)}
    assert np.array_equal(found.shard.array("img_emb"), embedded.shard.array("img_emb")[kept])
    assert (found.shard.record.rows_in, found.shard.record.rows_out) == (21, 18)


def test_whatever_is_done_to_a_picture_it_is_kept_or_rejected(tmp_path: Path) -> None:
    rng = Random(5)
    sound = [jpeg for jpeg, _ in drawn_pairs(10)]
    sizes = [Image.open(io.BytesIO(jpeg)).size for jpeg in sound]
    pairs = [(spoil(sound[number % 10], rng), f"number {number}") for number in range(400)]
    found = embed(tmp_path, pairs, sizes=[sizes[number % 10] for number in range(400)])
    assert len(found.pairs) + len(found.rejects) == 400
    assert len(found.rejects) > 40


def spoil(jpeg: bytes, rng: Random) -> bytes:
    """Some bytes changed, mostly among the headers; some cut out."""
    spoilt = bytearray(jpeg)
    for _ in range(rng.randint(1, 4)):
        spoilt[rng.randrange(min(len(spoilt), rng.choice((30, 700, 10**6))))] = rng.randrange(256)
    if rng.random() < 0.3:
        first = rng.randrange(len(spoilt))
        del spoilt[first : first + rng.randint(1, 500)]
    return bytes(spoilt)


def test_a_header_that_promises_other_pixels_than_were_stored_is_not_believed(tmp_path: Path) -> None:
    found = embed(tmp_path, [(jpeg_of(Image.new("RGB", (900, 900))), "large")], sizes=[(90, 90)])
    assert list(found.rejects.values()) == ["corrupt_image"]


def test_failed_downloads_are_passed_over(tmp_path: Path) -> None:
    found = embed(tmp_path, [(None, "gone"), PAIRS[3], (None, "gone too"), PAIRS[5]])
    assert [row["pair_id"] for row in found.pairs] == ["toy-0000000001", "toy-0000000003"]
    assert found.shard.record.rows_in == 2


@pytest.mark.parametrize("jpeg", [None, b"no picture"])
def test_a_shard_without_a_good_picture_is_a_shard(tmp_path: Path, jpeg: bytes | None) -> None:
    found = embed(tmp_path, [(jpeg, "gone")] * 3, sizes=[(9, 9)] * 3)
    assert found.pairs == []
    assert found.shard.array("img_emb").shape == found.shard.array("text_emb").shape == (0, 24)


def test_gray_and_cmyk_pictures_are_read(tmp_path: Path) -> None:
    picture = Image.open(io.BytesIO(PAIRS[0][0]))
    found = embed(tmp_path, [(jpeg_of(picture.convert(mode)), mode) for mode in ("L", "CMYK")])
    assert len(found.pairs) == 2


def test_captions_are_mended_before_they_are_encoded(tmp_path: Path) -> None:
    found = embed(
        tmp_path, [(PAIRS[0][0], "caf\u00c3\u00a9 &amp; \u00a0bar\n\tnext door"), (PAIRS[0][0], "café & bar next door")]
    )
    assert found.pairs[0]["caption"] == "café & bar next door"
    assert np.array_equal(*found.shard.array("text_emb"))


@pytest.mark.parametrize("text", ["", " ", "a\u2028b", "&lt;b&gt;", "ﬁne “quotes”", "\x00\x1b[0m", "日本語", "e\u0301"])
def test_a_mended_caption_is_one_line_and_stays_as_it_is(text: str) -> None:
    mended = mend_caption(text)
    assert mend_caption(mended) == mended
    assert len(mended.splitlines()) <= 1


def test_weights_count_by_their_content_and_not_by_their_path(tmp_path: Path) -> None:
    for name, data in {"a": b"one", "b": b"one", "c": b"two"}.items():
        (tmp_path / f"{name}.safetensors").write_bytes(data)
    a, b, c = (
        Embed(EmbedRecipe(pretrained=str(tmp_path / f"{name}.safetensors"), device="cpu")).settings() for name in "abc"
    )
    assert a == b != c


def test_threads_device_and_workers_may_change_between_resumes() -> None:
    changed = EmbedRecipe(device="cuda", cpus=7, decode_threads=9, workers=3)
    assert Embed(changed).settings() == Embed(EmbedRecipe(device="cpu")).settings()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=ViT-B32", "ViT-B-32"),
        ("model=hf-hub:someone/something", "open_clip"),
        ("pretrained=/nowhere/weights.safetensors", "there is no such file"),
        ("precision=fp8", "bf16"),
        ("batch_size=0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_starts(tmp_path: Path, override: str, message: str) -> None:
    (tmp_path / "recipe.yaml").write_text("{}")
    with pytest.raises(RecipeError, match=message):
        load_recipe(EmbedRecipe, tmp_path / "recipe.yaml", [override])
