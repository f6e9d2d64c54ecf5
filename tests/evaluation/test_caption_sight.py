"""One forward for model and index where their encoder is one, and else each looks with its own, at its own size."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from model.checkpoint import from_pretrained
from model.config import ReViLMConfig
from model.evaluation.answerer import Answerer, Decoding
from model.evaluation.captioner import Captioner
from model.evaluation.given import Given
from model.evaluation.given import pictures as given
from model.evaluation.live_index import LiveIndex
from model.evaluation.sight import Sight
from model.revilm import ReViLM
from model.sequence import Chunk
from stages.download import DownloadRecipe
from stages.filter import CorpusReader
from tests.evaluation.indexed import NEIGHBORS, SCENES, saved, with_encoder_of

Changed = Callable[[ReViLM], ReViLM]


@pytest.fixture(scope="module")
def index(database: str) -> LiveIndex:
    return LiveIndex(database)


@pytest.fixture(scope="module")
def jpegs(database: str) -> list[bytes]:
    corpus = CorpusReader(database)
    return [corpus.picture(corpus.row(number)) for number in range(SCENES)]


@pytest.fixture(scope="module")
def own(database: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint whose image encoder is that of the index's vectors."""
    return saved(tmp_path_factory.mktemp("own") / "model", with_encoder_of(database))


def test_one_forward_gives_the_keys_of_the_index_to_the_bit_and_the_models_patch_tokens(
    own: str, index: LiveIndex, jpegs: list[bytes]
) -> None:
    answerer = Answerer.open(own)
    sight = Sight(answerer, index)
    assert sight.shared
    seen = sight.see(jpegs)
    assert np.array_equal(np.stack([each.key for each in seen]), index.embed(jpegs))
    encoder = answerer.model.image_encoder
    assert encoder is not None
    with torch.inference_mode():
        due = encoder(torch.cat([sight.pixels(jpeg) for jpeg in jpegs]))
    torch.testing.assert_close(
        torch.cat([each.image for each in seen]), due, rtol=0, atol=1e-5 * float(due.abs().max())
    )


def test_captions_and_neighbours_are_those_of_two_forwards(
    own: str, database: str, jpegs: list[bytes], pictures: Path
) -> None:
    captioner = Captioner.open(own, database, Decoding(max_new_tokens=5))
    index = captioner.index
    assert index is not None
    found = [*captioner.captions(given([str(pictures)], DownloadRecipe()))]
    assert [each.jpeg for each in found] == jpegs
    corpus = CorpusReader(database)
    stored = [SimpleNamespace(**corpus.row(number), jpeg=jpeg) for number, jpeg in enumerate(jpegs)]
    plain = index.neighbors(stored, index.embed(jpegs), NEIGHBORS)
    for each, shown in zip(found, plain, strict=True):
        assert [n.pair["pair_id"] for n in each.neighbors] == [n.pair["pair_id"] for n in shown.kept]
    prompts = [
        [Chunk(image=captioner.sight.pixels(jpeg), neighbors=[n.caption for n in shown.kept], ends=False)]
        for jpeg, shown in zip(jpegs, plain, strict=True)
    ]
    assert captioner.answerer.say(prompts, captioner.decoding) == [each.caption for each in found]


def test_a_picture_too_narrow_to_be_resized_costs_the_others_nothing(own: str, database: str, pictures: Path) -> None:
    """As high as the model's pictures it would be two million pixels long."""
    narrow = io.BytesIO()
    Image.new("RGB", (65_000, 1)).save(narrow, "PNG")
    captioner = Captioner.open(own, database, Decoding(max_new_tokens=5))
    usual = Given("usual", (pictures / "00.png").read_bytes())
    first, second = captioner.captions(iter([Given("narrow", narrow.getvalue()), usual]))
    assert first.error.startswith("too_many_pixels: 65000 × 1 px, 2080000 × 32 when resized")
    assert second.caption is not None


@torch.no_grad()
def finetuned(model: ReViLM) -> ReViLM:
    assert model.image_encoder is not None
    model.image_encoder.ln_post.weight[0] += 1e-6
    return model


def reconfigured(model: ReViLM, **changed: object) -> ReViLM:
    """The same weights, read in another way."""
    assert model.config.vision is not None
    encoder = replace(model.config.vision.encoder, **changed)  # type: ignore[arg-type]
    other = ReViLM(replace(model.config, vision=replace(model.config.vision, encoder=encoder)))
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize(
    "changed",
    [
        finetuned,
        lambda model: reconfigured(model, quick_gelu=True),
        lambda model: reconfigured(model, mean=(0.4, 0.4, 0.4)),
        lambda model: reconfigured(model, heads=1),
    ],
    ids=["weights", "activation", "mean", "heads"],
)
def test_a_finetuned_checkpoint_leaves_the_keys_to_the_original_encoder(
    changed: Changed, own: str, index: LiveIndex, jpegs: list[bytes], tmp_path: Path
) -> None:
    answerer = Answerer.open(saved(tmp_path / "changed", changed(from_pretrained(own).model)))
    refuse_shared(Sight(answerer, index), index, jpegs)


def test_a_checkpoint_for_larger_pictures_leaves_the_keys_to_the_original_encoder_at_its_size(
    own: str, index: LiveIndex, jpegs: list[bytes], tmp_path: Path
) -> None:
    small = from_pretrained(own).model.config
    larger = from_pretrained(own, _at(small, 48)).model
    answerer = Answerer.open(saved(tmp_path / "larger", larger))
    seen = refuse_shared(Sight(answerer, index), index, jpegs)
    assert seen.shape == (SCENES, 3, 48, 48)


def _at(config: ReViLMConfig, image_size: int) -> ReViLMConfig:
    assert config.vision is not None
    encoder = replace(config.vision.encoder, image_size=image_size)
    return replace(config, vision=replace(config.vision, encoder=encoder))


def refuse_shared(sight: Sight, index: LiveIndex, jpegs: list[bytes]) -> torch.Tensor:
    """→ what the model sees: pixels, for its own encoder."""
    assert not sight.shared
    seen = sight.see(jpegs)
    assert np.array_equal(np.stack([each.key for each in seen]), index.embed(jpegs))
    return torch.cat([each.image for each in seen])
