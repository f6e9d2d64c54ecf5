"""open_clip's vision transformers by name, and their weights from a file, without importing open_clip."""

from difflib import get_close_matches
from importlib.util import find_spec
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import ImageEncoderConfig
from model.files import read_json, tensor_faults
from model.image_encoder import ImageEncoder, resize_positions

_READ = {"image_size": 224, "patch_size": 16, "width": 768, "layers": 12, "head_width": 64, "mlp_ratio": 4.0}
"""The keys of vision_cfg that a plain vision transformer has, with open_clip's defaults."""

_PREPARATION = {"mode": "RGB", "resize_mode": "shortest", "interpolation": "bicubic"}
"""The keys of preprocess_cfg that say how a picture comes to its size, with open_clip's defaults."""

_TOWER = "visual."
_PROJECTION = "visual.proj"  # to the joint space of pictures and texts


def config_of(model: str | Path, image_size: int | None = None) -> ImageEncoderConfig:
    """model: one of open_clip's names ("ViT-B-32"), or the path of an open_clip_config.json. image_size in px; None:
    as the model was trained.

    A name has OpenAI's mean and std; weights that were trained with others (laion2b_s32b_b82k of ViT-L-14, say) come
    with a file that has them. OpenAI's weights want the name that ends in -quickgelu: with the other they load, and see
    worse.

    Raises ValueError for an unknown name, for what is no plain vision transformer, for pictures that are to be prepared
    otherwise than model.training.pictures does it, and for a size that is no multiple of the patch; FileNotFoundError
    where open_clip is not installed, or there is no such file.
    """
    found, preparation = _read_config(model)
    refused = [f"{key} is {value!r}" for key, value in found["vision_cfg"].items() if not _understood(key, value)]
    if refused:
        raise ValueError(
            f"{model}: vision_cfg.{', '.join(refused)}; the image encoder is a plain vision transformer, "
            f"which has numbers for {', '.join(_READ)} and nothing else. Take another model, such as ViT-B-32"
        )
    vision = _READ | found["vision_cfg"]
    return ImageEncoderConfig(
        image_size=vision["image_size"] if image_size is None else image_size,
        patch_size=vision["patch_size"],
        width=vision["width"],
        layers=vision["layers"],
        heads=vision["width"] // vision["head_width"],
        feed_forward=int(vision["width"] * vision["mlp_ratio"]),
        quick_gelu=found.get("quick_gelu", False),
        **_mean_and_std(model, preparation),
    )


def read_weights(config: ImageEncoderConfig, path: Path) -> ImageEncoder:
    """The vision tower of a .safetensors file that holds open_clip's CLIP, in float32 on the CPU.

    Its text tower and projection are left where they are. A grid of positions of another size is interpolated.

    Raises ValueError for another kind of file, and for tensors that are missing, of another shape or no part of it, all
    named at once; FileNotFoundError where there is no such file.
    """
    with torch.device("meta"):
        encoder = ImageEncoder(config)
    tensors = _read_tower(path)
    positions = tensors.get("positional_embedding")
    if positions is not None and _is_grid(positions):
        tensors["positional_embedding"] = resize_positions(positions, config.grid)
    due, found = (
        {f"{_TOWER}{name}": tensor.shape for name, tensor in each.items()} for each in (encoder.state_dict(), tensors)
    )
    faults = tensor_faults(due, found)
    if faults:
        raise ValueError(f"{path} does not hold the weights of {config}: {'; '.join(faults)}")
    encoder.to_empty(device="cpu").load_state_dict(tensors)
    return encoder


def _read_config(model: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """open_clip's description of a model (quick_gelu, vision_cfg, and what is not read here) and of its pictures."""
    if isinstance(model, str):
        return read_json(_installed(model)), {}
    found = read_json(model)
    if "vision_cfg" not in found.get("model_cfg", {}):
        raise ValueError(f"{model} has no model_cfg.vision_cfg; it should be an open_clip_config.json")
    return found["model_cfg"], found.get("preprocess_cfg", {})


def _mean_and_std(model: str | Path, preparation: dict[str, Any]) -> dict[str, tuple[float, ...]]:
    """As far as they are given."""
    for key, known in _PREPARATION.items():
        value = preparation.get(key) or known
        if value != known:
            raise ValueError(
                f"{model}: preprocess_cfg.{key} is {value!r}; pictures are prepared with {known!r} alone. "
                "Take another model, such as ViT-B-32"
            )
    given = {key: preparation.get(key) for key in ("mean", "std")}
    return {
        key: tuple(value) if isinstance(value, list) else (value,) * 3
        for key, value in given.items()
        if value is not None
    }


def _installed(name: str) -> Path:
    package = find_spec("open_clip")  # does not import it, which takes seconds and needs torchvision
    if package is None or package.origin is None:
        raise FileNotFoundError(
            f"{name} is described by open_clip, which is not installed: pip install open_clip_torch"
        )
    known = {path.stem: path for path in Path(package.origin).parent.glob("model_configs/*.json")}
    if name not in known:
        near = " or ".join(get_close_matches(name, known))
        raise ValueError(f"{name!r} is no model of open_clip" + (f"; did you mean {near}?" if near else ""))
    return known[name]


def _understood(key: str, value: object) -> bool:
    """Every other key of vision_cfg changes the network where it is set, but for output_tokens."""
    if key in _READ:
        return isinstance(value, int | float)
    return key == "output_tokens" or value is None or value is False


def _read_tower(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} should be .safetensors; pickled weights can run code and are not loaded, convert them"
        )
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(_TOWER) and name != _PROJECTION]  # noqa: SIM118
            return {name.removeprefix(_TOWER): file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error


def _is_grid(positions: Tensor) -> bool:
    if positions.dim() != 2:
        return False
    patches = len(positions) - 1
    return patches > 0 and isqrt(patches) ** 2 == patches
