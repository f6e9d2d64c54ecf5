"""CLIP's two towers: pictures and captions → unit vectors that can be compared. The only importer of open_clip.

Shapes: N captions, B pictures, H and W px of the model's input, T tokens, D width of the embedding.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.errors import InputError
from stages.embed.torchvision_guard import make_torchvision_importable

make_torchvision_importable()

import open_clip  # noqa: E402
from open_clip.transform import PreprocessCfg, image_transform_v2  # noqa: E402

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Precision = Literal["fp32", "bf16"]

log = logging.getLogger("pipeline.embed")

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_CHARACTERS_PER_TOKEN = 26
"""Text beyond this many times the context is not looked at: the longest token of letters has 18, and the time of
open_clip's tokenizer grows with the square of a word's length (0.3 s for 2,000 letters)."""


@dataclass(frozen=True)
class Towers:
    """A model ready to encode: in float32 or, but for its layer norms, in bfloat16. Results are float32 always."""

    model: Any  # open_clip's CLIP, or another class of the same methods
    tokenizer: Any  # list of str → (N, T) int64; has context_length
    width: int  # D
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def load(cls, model: str, pretrained: str | None, precision: Precision = "fp32", device: str = "cpu") -> "Towers":
        """model: a name that open_clip knows. pretrained: a .safetensors file or one of open_clip's tags, whose weights
        are downloaded unless they are cached; None: random weights, from torch's global seed.

        Raises InputError where there are no such weights, or they are another model's.
        """
        tag = open_clip.get_pretrained_cfg(model, pretrained) if pretrained else {}
        if pretrained and not tag:
            _check_file(model, Path(pretrained))
        try:
            network = _create(model, pretrained, precision, device, quick_gelu=tag.get("quick_gelu", False))
        except (RuntimeError, AssertionError, SafetensorError) as error:  # all that open_clip raises for them
            raise InputError(_why_not_loaded(model, pretrained, error, downloading=bool(tag))) from error
        log.info("opened %s (%s) in %s on %s", model, pretrained, precision, device)
        return cls._of(network, model, precision, device)

    @classmethod
    def load_files(
        cls, config: Path, weights: Path | None, precision: Precision = "fp32", device: str = "cpu"
    ) -> "Towers":
        """config: open_clip's JSON of model_cfg and preprocess_cfg. weights: safetensors; None: random ones."""
        with TemporaryDirectory() as folder:  # open_clip finds the two by their names
            Path(folder, "open_clip_config.json").symlink_to(config.absolute())
            if weights:
                Path(folder, "open_clip_model.safetensors").symlink_to(weights.absolute())
            name = f"local-dir:{folder}"
            return cls._of(_create(name, None, precision, device), name, precision, device)

    @classmethod
    def _of(cls, network: Any, name: str, precision: Precision, device: str) -> "Towers":
        with _quietly():
            tokenizer = open_clip.get_tokenizer(name)
        return cls(
            model=network.eval().requires_grad_(requires_grad=False),
            tokenizer=tokenizer,
            width=open_clip.get_model_config(name)["embed_dim"],
            dtype=_DTYPES[precision],
            device=torch.device(device),
        )

    @property
    def preprocessing(self) -> Any:
        return PreprocessCfg(**open_clip.get_model_preprocess_cfg(self.model))

    def fitter(self) -> Callable[[Image.Image], Image.Image]:
        """open_clip's own preparation of a picture as far as it is a picture: resize, crop, RGB; (H, W) afterwards."""
        *steps, _to_tensor, _normalize = image_transform_v2(self.preprocessing, is_train=False).transforms

        def fit(image: Image.Image) -> Image.Image:
            for step in steps:
                image = step(image)
            return image

        return fit

    def empty_pixels(self, num_pictures: int) -> Tensor:
        """(B, H, W, 3) uint8, not initialised; in pinned memory where there is a GPU to copy it to."""
        size = self.preprocessing.size
        height, width = (size, size) if isinstance(size, int) else size
        return torch.empty(num_pictures, height, width, 3, dtype=torch.uint8, pin_memory=self.device.type == "cuda")

    def normalize_pixels(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 → what the image tower takes, (B, 3, H, W)."""
        x = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).contiguous().float().div_(255)
        mean, std = torch.tensor([self.preprocessing.mean, self.preprocessing.std], device=self.device)
        return x.sub_(mean[:, None, None]).div_(std[:, None, None]).to(self.dtype)

    def image_features(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8, fitted → (B, D) as the model has them, differentiable."""
        features: Tensor = self.model.encode_image(self.normalize_pixels(pixels))
        return features

    def text_features(self, tokens: Tensor) -> Tensor:
        """(N, T) → (N, D) as the model has them, differentiable. The context is cut to the longest text: exact."""
        length = max(self._lengths(tokens).tolist(), default=1)
        cut = {}
        if length < tokens.shape[1]:
            cut["model.positional_embedding"] = self.model.positional_embedding[:length]
            cut["model.attn_mask"] = self.model.attn_mask[:length, :length]
        features: Tensor = functional_call(_TextTower(self.model), cut, (tokens[:, :length].to(self.device),))
        return features

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Vectors:
        """(B, H, W, 3) uint8, fitted → (B, D), of norm 1."""
        return _unit(self.image_features(pixels))

    @torch.inference_mode()
    def encode_images_and_patches(self, pixels: Tensor) -> tuple[Vectors, Tensor]:
        """(B, H, W, 3) uint8, fitted, by a vision transformer → (B, D), of norm 1, and of the same forward the patch
        tokens after the last norm, (B, S, width) float32 on the tower's device."""
        found = self.model.visual.forward_intermediates(
            self.normalize_pixels(pixels), indices=1, normalize_intermediates=True, output_fmt="NLC"
        )
        return _unit(found["image_features"]), found["image_intermediates"][0].float()

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> Vectors:
        """→ (N, D), of norm 1."""
        return self.encode_tokens(self.tokenize(texts), batch_size)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """→ (N, T) int64, padded to the model's context."""
        limit = _CHARACTERS_PER_TOKEN * self.tokenizer.context_length
        tokens: Tensor = self.tokenizer([text[:limit] for text in texts])
        return tokens

    @torch.inference_mode()
    def encode_tokens(self, tokens: Tensor, batch_size: int = 256) -> Vectors:
        """(N, T) → (N, D), of norm 1. Each distinct text is encoded once, in batches of like length."""
        distinct, where = torch.unique(tokens, dim=0, return_inverse=True)
        order = self._lengths(distinct).argsort(stable=True)
        found = np.empty((len(distinct), self.width), np.float32)
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            found[rows.numpy()] = _unit(self.text_features(distinct[rows]))
        spread: Vectors = found[where.numpy()]
        return spread

    def _lengths(self, tokens: Tensor) -> Tensor:
        """(N, T) → (N,): how many tokens decide the result. OpenAI's tower shows a token those before it, and is read
        at the last one, whose id is the largest; any other may look at all."""
        model = self.model
        if isinstance(model, open_clip.CLIP) and model.attn_mask is not None and model.text_pool_type == "argmax":
            return tokens.argmax(dim=1) + 1
        return torch.full((len(tokens),), tokens.shape[1])


class _TextTower(nn.Module):
    """`functional_call` replaces tensors for the time of one `forward`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Any:
        return self.model.encode_text(tokens)


def _unit(vectors: Tensor) -> Vectors:
    unit: Vectors = nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return unit


def _create(model: str, pretrained: str | None, precision: Precision, device: str, *, quick_gelu: bool = False) -> Any:
    if device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"embed.device is {device}, but torch {torch.__version__} finds no GPU; set embed.device=cpu")
    with _quietly():
        return open_clip.create_model(
            model, pretrained, precision=precision, device=device, force_quick_gelu=quick_gelu, weights_only=True
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """open_clip tells the root logger a dozen lines about each model."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _check_file(model: str, path: Path) -> None:
    if not path.is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model))
        raise InputError(f"embed.pretrained: {path} is neither a file nor one of {model}'s tags ({tags})")
    if path.suffix != ".safetensors":
        raise InputError(
            f"embed.pretrained: {path} should be .safetensors; pickled weights are not loaded, convert them"
        )


def _why_not_loaded(model: str, pretrained: str | None, error: Exception, *, downloading: bool) -> str:
    cause = " ".join(str(error).split())[:300]
    if not downloading:
        return f"embed.pretrained: {pretrained} does not hold the weights of {model}: {cause}"
    return (
        f"embed.pretrained: the weights {pretrained} of {model} are not cached, and could not be downloaded ({cause}); "
        "without a network, copy them here and set embed.pretrained to the .safetensors file"
    )
