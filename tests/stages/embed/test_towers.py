"""The towers give what open_clip gives, for less work, and load nothing that could run code."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.errors import InputError
from stages.embed.towers import Towers
from tests.stages.embed.pictures import write_tiny

TEXTS = [
    "a dog",
    "two red hearts on a beach",
    "",
    "A DOG",
    "word " * 60,
    "ein Hund läuft über die Straße, 犬が走る 🐕🐕🐕",
    "a dog",
]


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Towers:
    torch.manual_seed(0)
    return Towers.load_files(write_tiny(tmp_path_factory.mktemp("tiny")), None)


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessing_equals_open_clips_own_to_the_bit(tmp_path: Path, resize_mode: str, interpolation: str) -> None:
    config = write_tiny(tmp_path, {"resize_mode": resize_mode, "interpolation": interpolation, "mean": [0.5, 0.4, 0.3]})
    towers = Towers.load_files(config, None)
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{config.parent}")
    fit = towers.fitter()
    pictures = [noise(*size) for size in ((32, 32), (31, 90), (257, 64), (9, 5))] + [noise(50, 40, "L")]
    for picture in pictures:
        pixels = torch.from_numpy(np.array(fit(picture)))[None]
        assert torch.equal(towers.normalize_pixels(pixels)[0], transform(picture))


def test_the_cut_context_gives_what_the_whole_one_gives(towers: Towers) -> None:
    with torch.inference_mode():
        whole = towers.model.encode_text(towers.tokenize(TEXTS), normalize=True).numpy()
    np.testing.assert_allclose(towers.encode_texts(TEXTS), whole, atol=1e-6)
    for text, row in zip(TEXTS, whole, strict=True):
        np.testing.assert_allclose(towers.encode_texts([text])[0], row, atol=1e-6)


def test_a_tower_that_is_read_elsewhere_keeps_its_context() -> None:
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "patch_size": 16, "head_width": 16, "width": 32, "layers": 1},
        text_cfg={
            "context_length": 12,
            "heads": 2,
            "width": 32,
            "layers": 1,
            "no_causal_mask": True,
            "pool_type": "last",
        },
    ).eval()
    tokenizer = open_clip.SimpleTokenizer(context_length=12)
    towers = Towers(model, tokenizer, width=16, dtype=torch.float32, device=torch.device("cpu"))
    with torch.inference_mode():
        whole = model.encode_text(tokenizer(TEXTS), normalize=True).numpy()
    np.testing.assert_allclose(towers.encode_texts(TEXTS), whole, atol=1e-6)


def test_equal_texts_have_equal_vectors_wherever_they_stand(towers: Towers) -> None:
    many = [TEXTS[number % len(TEXTS)] for number in range(40)]
    vectors = towers.encode_texts(many, batch_size=3)
    for number in range(len(TEXTS), 40):
        assert np.array_equal(vectors[number], vectors[number - len(TEXTS)])


def test_what_lies_beyond_the_context_changes_nothing(towers: Towers) -> None:
    text = "fine words butter no parsnips " * 30
    assert torch.equal(towers.tokenize([text + "x" * 200_000]), towers.tokenizer([text]))


def test_no_texts_are_no_vectors(towers: Towers) -> None:
    assert towers.encode_texts([]).shape == (0, towers.width)


def test_bf16_is_near_fp32_and_of_norm_1(towers: Towers, tmp_path: Path) -> None:
    save_file(towers.model.state_dict(), tmp_path / "w.safetensors")
    half = Towers.load_files(write_tiny(tmp_path), tmp_path / "w.safetensors", precision="bf16")
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    for found, exact in (
        (half.encode_images(pixels), towers.encode_images(pixels)),
        (half.encode_texts(TEXTS), towers.encode_texts(TEXTS)),
    ):
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        assert ((found * exact).sum(axis=1) > 0.999).all()


def test_weights_of_a_file_are_the_ones_that_encode(tmp_path: Path) -> None:
    """By one of open_clip's own names, which is what a recipe gives."""
    torch.manual_seed(1)
    saved = Towers.load("ViT-S-32-alt", None)
    save_file(saved.model.state_dict(), tmp_path / "w.safetensors")
    loaded = Towers.load("ViT-S-32-alt", str(tmp_path / "w.safetensors"))
    assert np.array_equal(loaded.encode_texts(TEXTS), saved.encode_texts(TEXTS))


def test_weights_that_are_not_the_models_are_refused(towers: Towers, tmp_path: Path) -> None:
    save_file(towers.model.state_dict(), tmp_path / "tiny.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    for name in ("tiny", "broken"):
        with pytest.raises(InputError, match="does not hold the weights of ViT-S-32-alt"):
            Towers.load("ViT-S-32-alt", str(tmp_path / f"{name}.safetensors"))


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("trapped",))


@pytest.mark.parametrize("suffix", ["pt", "bin", "pth", "npz"])
def test_pickled_weights_are_refused_and_never_opened(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"w.{suffix}").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match="should be .safetensors"):
        Towers.load("ViT-B-32", f"w.{suffix}")
    assert not Path("trapped").exists()


def test_an_unknown_tag_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="laion2b_s34b_b79k"):
        Towers.load("ViT-B-32", "laion5b")


def test_a_device_that_is_not_there_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="embed.device is cuda"):
        Towers.load("ViT-S-32-alt", None, device="cuda")


def test_weights_that_would_have_to_be_downloaded_without_a_network_say_so(tmp_path: Path) -> None:
    code = "from stages.embed.towers import Towers; Towers.load('ViT-B-32', 'laion2b_s34b_b79k')"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "could not be downloaded" in found.stderr
    assert "set embed.pretrained to the .safetensors file" in found.stderr
