"""The image encoder gives what open_clip's vision tower gives, loads its weights, and refuses what it cannot be."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.config import ImageEncoderConfig
from model.image_encoder import ImageEncoder
from model.open_clip_weights import config_of, read_weights
from stages.embed.torchvision_guard import make_torchvision_importable

make_torchvision_importable()

import open_clip  # noqa: E402
from open_clip.model import resize_pos_embed  # noqa: E402

TINY = ImageEncoderConfig(image_size=32, patch_size=8, width=48, layers=2, heads=3, feed_forward=96)
TEXT = {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1}


def clip_like(config: ImageEncoderConfig) -> open_clip.CLIP:
    """open_clip's model of this vision tower, its weights drawn anew: its own draw leaves biases at zero."""
    vision = {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "width": config.width,
        "layers": config.layers,
        "head_width": config.width // config.heads,
        "mlp_ratio": config.inner / config.width,
        "output_tokens": True,
    }
    torch.manual_seed(1)
    clip = open_clip.CLIP(8, vision, TEXT, quick_gelu=config.quick_gelu)
    with torch.no_grad():
        for weight in clip.visual.parameters():
            weight.normal_(std=0.15)
    return clip.eval()


def named_tower(name: str) -> open_clip.transformer.VisionTransformer:
    """open_clip's own, without memory. The text tower is not looked at."""
    found = open_clip.get_model_config(name)
    with torch.device("meta"):
        return open_clip.CLIP(found["embed_dim"], found["vision_cfg"], TEXT, found.get("quick_gelu", False)).visual


def file_of(clip: open_clip.CLIP, folder: Path) -> Path:
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    return folder / "open_clip_model.safetensors"


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def tiny_encoder() -> ImageEncoder:
    torch.manual_seed(3)
    return ImageEncoder(TINY).eval()


@pytest.mark.parametrize("quick_gelu", [False, True])
@torch.no_grad()
def test_patch_tokens_are_open_clips_own(tmp_path: Path, quick_gelu: bool) -> None:
    config = replace(TINY, quick_gelu=quick_gelu)
    clip = clip_like(config)
    encoder = read_weights(config, file_of(clip, tmp_path))
    pixels = noise(3, 3, 32, 32)
    _, tokens = clip.visual(pixels)
    assert tokens.abs().max() > 0.1
    torch.testing.assert_close(encoder(pixels), tokens, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("patch", "size"), [(32, 480), (14, 476), (32, 96)])
@torch.no_grad()
def test_at_another_size_it_is_open_clips_with_resized_positions(tmp_path: Path, patch: int, size: int) -> None:
    config = replace(TINY, image_size=224, patch_size=patch, layers=1)
    clip, larger = clip_like(config), clip_like(replace(config, image_size=size))
    weights = clip.state_dict()
    resize_pos_embed(weights, larger)
    larger.load_state_dict(weights)
    resized = read_weights(replace(config, image_size=size), file_of(clip, tmp_path))
    assert torch.equal(resized.positional_embedding, larger.visual.positional_embedding)
    pixels = noise(1, 3, size, size)
    _, tokens = larger.visual(pixels)
    torch.testing.assert_close(resized(pixels), tokens, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_bytes_are_normalised_by_the_configuration_and_other_pixels_are_not(dtype: torch.dtype) -> None:
    config = replace(TINY, mean=(0.1, 0.5, 0.9), std=(0.5, 0.25, 2.0))
    encoder = ImageEncoder(config).to(dtype)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    before = pixels.clone()
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    assert torch.equal(encoder(pixels), encoder(((pixels / 255 - mean) / std).to(dtype)))
    assert torch.equal(pixels, before)


@torch.no_grad()
def test_half_precision_files_are_read_into_float32(tmp_path: Path) -> None:
    clip = clip_like(TINY)
    encoder = read_weights(TINY, file_of(clip.half(), tmp_path))
    _, tokens = clip.float().visual(noise(1, 3, 32, 32))
    torch.testing.assert_close(encoder(noise(1, 3, 32, 32)), tokens, rtol=0, atol=1e-5)
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "millions", "tokens", "large", "large_tokens"),
    [("ViT-B-32", 87.85, 49, 480, 225), ("ViT-L-14", 303.97, 256, 476, 1156)],
)
def test_named_towers_have_open_clips_parameters_but_the_projection(
    name: str, millions: float, tokens: int, large: int, large_tokens: int
) -> None:
    with torch.device("meta"):
        encoder = ImageEncoder(config_of(name))
        assert encoder(torch.empty(2, 3, 224, 224)).shape == (2, tokens, encoder.config.width)
        larger = ImageEncoder(config_of(name, large))
        assert larger(torch.empty(1, 3, large, large)).shape[1] == large_tokens
    theirs = {name: weight.shape for name, weight in named_tower(name).named_parameters()}
    assert round(sum(shape.numel() for shape in theirs.values()) / 1e6, 2) == millions
    theirs.pop("proj")
    assert {name: weight.shape for name, weight in encoder.named_parameters()} == theirs


def test_a_token_stands_for_the_patch_at_its_place_row_by_row() -> None:
    encoder = tiny_encoder()
    for name, weight in encoder.named_parameters():
        if name.endswith("out_proj.weight"):  # what moves between tokens, moves through attention
            torch.nn.init.zeros_(weight)
    pixels = noise(1, 3, 32, 32)
    changed = pixels.clone()
    changed[:, :, 8:16, 24:32] += 1  # of a grid of 4 × 4, the last patch of the second row
    with torch.no_grad():
        differs = (encoder(pixels) != encoder(changed)).any(-1)[0]
    assert differs.nonzero().flatten().tolist() == [7]


@torch.no_grad()
def test_pictures_do_not_see_each_other() -> None:
    encoder, pixels = tiny_encoder(), noise(3, 3, 32, 32)
    for number in range(3):
        alone = encoder(pixels[number : number + 1])
        torch.testing.assert_close(encoder(pixels)[number : number + 1], alone, rtol=0, atol=1e-5)


def test_no_pictures_give_no_tokens_and_zero_gradients() -> None:
    encoder = tiny_encoder()
    tokens = encoder(torch.empty(0, 3, 32, 32))
    assert tokens.shape == (0, 16, 48)
    tokens.sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None, name
        assert not weight.grad.any(), name


def test_a_frozen_encoder_builds_no_graph() -> None:
    encoder = tiny_encoder().requires_grad_(requires_grad=False)
    assert encoder(noise(1, 3, 32, 32)).grad_fn is None


@torch.no_grad()
def test_in_bfloat16_the_tokens_are_the_same_within_a_few_hundredths() -> None:
    encoder, pixels = tiny_encoder(), noise(2, 3, 32, 32)
    expected = encoder(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = encoder(pixels)
    torch.testing.assert_close(under_autocast.float(), expected, rtol=0, atol=0.05)
    halved = encoder.to(torch.bfloat16)(pixels.bfloat16())
    torch.testing.assert_close(halved.float(), expected, rtol=0, atol=0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own
@torch.no_grad()
def test_compiled_it_is_one_graph_with_the_same_tokens() -> None:
    encoder = tiny_encoder()
    compiled = torch.compile(encoder, fullgraph=True)
    for pixels in (noise(2, 3, 32, 32), noise(2, 3, 32, 32).mul(60).byte()):
        torch.testing.assert_close(compiled(pixels), encoder(pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 64, 64), r"\(1, 3, 64, 64\); the encoder takes \(N, 3, 32, 32\)"),
        ((1, 3, 32, 24), r"\(1, 3, 32, 24\); the encoder takes \(N, 3, 32, 32\)"),
        ((3, 32, 32), r"\(3, 32, 32\); the encoder takes \(N, 3, 32, 32\)"),
        ((1, 3, 32, 30), "30 px is no multiple of the patch of 8 px; take 24 or 32"),
    ],
)
def test_pixels_of_another_shape_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_encoder()(torch.zeros(shape))


def test_a_size_that_cuts_patches_is_refused_naming_the_nearest() -> None:
    with pytest.raises(ValueError, match="480 px is no multiple of the patch of 14 px; take 476 or 490"):
        config_of("ViT-L-14", image_size=480)
    with pytest.raises(ValueError, match="30 px is no multiple of the patch of 8 px; take 24 or 32"):
        replace(TINY, image_size=30)


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-S-16", "ViT-bigG-14", "ViT-g-14", "coca_base"])
def test_a_name_means_what_it_means_to_open_clip(name: str) -> None:
    config, tower = config_of(name), named_tower(name)
    block = tower.transformer.resblocks[0]
    assert config.quick_gelu == isinstance(block.mlp.gelu, open_clip.transformer.QuickGELU)
    assert (config.image_size, config.patch_size) == (tower.image_size[0], tower.patch_size[0])
    assert (config.layers, config.heads) == (tower.transformer.layers, block.attn.num_heads)
    assert (config.inner, config.width) == tuple(block.mlp.c_fc.weight.shape)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RN50", r"layers is \[3, 4, 6, 3\]"),
        ("ViT-B-16-SigLIP", "timm_model_name is 'vit_base_patch16_siglip_224'"),
        ("coca_ViT-B-32", "attentional_pool is True"),
        ("ViT-L-14-CLIPA", "no_ln_pre is True, pool_type is 'avg', final_ln_after_pool is True"),
        ("ViT-M-16-alt", "ls_init_value is 0.0001"),
        ("ViT-B32", "did you mean ViT-B-32"),
        ("resnet", "'resnet' is no model of open_clip$"),
    ],
)
def test_what_is_no_plain_vision_transformer_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(name)


def write_config(file: Path, vision: dict[str, object], preparation: Mapping[str, object]) -> None:
    model = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": TEXT}
    file.write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preparation}))


def test_a_models_own_config_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "open_clip_config.json"
    vision: dict[str, object] = {"image_size": 32, "patch_size": 8, "width": 48}
    vision |= {"layers": 2, "head_width": 16, "mlp_ratio": 2.0}
    vision |= {"attentional_pool": False, "ls_init_value": None}  # said, but not set
    write_config(file, vision, {})
    assert config_of(file) == TINY
    write_config(file, vision, {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 1], "resize_mode": "shortest", "size": 32})
    assert config_of(file) == replace(TINY, mean=(0.5, 0.4, 0.3), std=(0.5, 0.5, 1.0))
    write_config(file, vision, {"mean": 0.5, "std": None, "interpolation": None})
    assert config_of(file) == replace(TINY, mean=(0.5, 0.5, 0.5))
    for preparation, message in (
        ({"resize_mode": "squash"}, "resize_mode is 'squash'; pictures are prepared with 'shortest' alone"),
        ({"interpolation": "bilinear"}, "interpolation is 'bilinear'; pictures are prepared with 'bicubic' alone"),
        ({"std": [0.5, 0.5]}, r"std is \[0.5, 0.5\]; allowed are three numbers > 0"),
    ):
        write_config(file, vision, preparation)
        with pytest.raises(ValueError, match=message):
            config_of(file)
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"no model_cfg\.vision_cfg"):
        config_of(file)


def test_weights_that_do_not_fit_are_refused_all_at_once(tmp_path: Path) -> None:
    weights = clip_like(TINY).state_dict()
    del weights["visual.ln_pre.bias"]
    weights["visual.conv1.weight"] = torch.zeros(48, 3, 4, 4)
    weights["visual.positional_embedding"] = torch.zeros(12, 48)
    weights["visual.transformer.resblocks.0.ls_1.gamma"] = torch.zeros(48)
    file = tmp_path / "open_clip_model.safetensors"
    save_file(weights, file)
    with pytest.raises(ValueError, match="does not hold the weights") as refused:
        read_weights(TINY, file)
    for fault in (
        "visual.ln_pre.bias is missing",
        "visual.conv1.weight is [48, 3, 4, 4] and should be [48, 3, 8, 8]",
        "visual.positional_embedding is [12, 48] and should be [17, 48]",
        "visual.transformer.resblocks.0.ls_1.gamma is extra",
    ):
        assert fault in str(refused.value)
    assert str(refused.value).count(";") == 3


def test_only_whole_safetensors_files_are_read(tmp_path: Path) -> None:
    whole = file_of(clip_like(TINY), tmp_path)
    torch.save({}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights\.pt should be \.safetensors"):
        read_weights(TINY, tmp_path / "weights.pt")
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut\.safetensors is no safetensors file"):
        read_weights(TINY, tmp_path / "cut.safetensors")
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        read_weights(TINY, tmp_path / "none.safetensors")
