"""A pretrained image encoder, from wherever a recipe says that its weights lie."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from pipeline.commits import Whole
from pipeline.errors import RecipeError
from pipeline.recipe import Section
from pipeline.run import LocalPath, Root

if TYPE_CHECKING:  # what they import would make the help of a job wait for torch
    from model.config import ImageEncoderConfig
    from model.image_encoder import ImageEncoder


class EncoderRecipe(Section):
    """A vision transformer of open_clip, or the one that a run's stage `encoder` trained."""

    model: str | None = None  # open_clip's name, such as ViT-B-32, or an open_clip_config.json
    weights: LocalPath | None = None  # .safetensors of open_clip's CLIP
    root: Root | None = None  # of a run whose encoder has `vit`
    image_size: int | None = Field(None, ge=1)  # px; None: as the encoder was trained

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.root is None) == (self.model is None) or (self.model is None) != (self.weights is None):
            raise ValueError("say either model and weights, or root")
        return self

    @property
    def lasts(self) -> bool:
        """Whether checkpoints may refer to its weights; not to the copy of an object store's."""
        return self.root is None or "://" not in self.root

    def files(self) -> tuple[str | Path, Path]:
        """What model.open_clip_weights.config_of takes, and the weights. Raises RecipeError where there are
        none, InputError where the root's stage is not whole."""
        if self.model is not None and self.weights is not None:
            if not self.weights.is_file():
                raise RecipeError(f"{self.weights} is not there; allowed is a .safetensors file of open_clip's CLIP")
            return Path(self.model) if self.model.endswith(".json") else self.model, self.weights
        assert self.root is not None, "one of two is said"
        whole = Whole.open(self.root, "encoder")
        (shard,) = whole.shards
        trained = whole.read(shard)
        return trained.path("config"), trained.path("weights")


def encoder_config(recipe: EncoderRecipe) -> "ImageEncoderConfig":
    """Raises RecipeError where there is none, or it takes no pictures of that size."""
    from model.open_clip_weights import config_of

    try:
        return config_of(recipe.files()[0], recipe.image_size)
    except (ValueError, FileNotFoundError) as error:
        raise RecipeError(f"the image encoder cannot be opened: {error}") from error


def open_encoder(recipe: EncoderRecipe) -> "ImageEncoder":
    """In float32, on the CPU, frozen. Raises RecipeError as encoder_config does, and for weights of another model."""
    from model.open_clip_weights import read_weights

    config = encoder_config(recipe)
    try:
        encoder = read_weights(config, recipe.files()[1])
    except (ValueError, FileNotFoundError) as error:
        raise RecipeError(f"the image encoder cannot be opened: {error}") from error
    return encoder.eval().requires_grad_(requires_grad=False)
