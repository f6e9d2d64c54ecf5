"""The demo's sections of a recipe, without the machinery behind them: it is loaded only where a recipe asks for it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from pipeline.errors import RecipeError
from pipeline.recipe import Json, Section


class DemoRecipe(Section):
    folder: Path  # where the url lists and the truth about them are written
    seed: int = 1
    urls: int = Field(3000, ge=200)
    port: int = Field(8791, ge=0)  # 0: any free one; the lists then differ from run to run

    @property
    def truth(self) -> Path:
        return self.folder / "truth.parquet"


class WorldRecipe(Section):
    """Of demo.worlds; how many pictures each of its lists shows."""

    seed: int = 1  # of own, and of what is held out
    other_seed: int = 2
    own: int = Field(3000, ge=1)
    other: int = Field(2000, ge=1)
    test: int = Field(300, ge=2, multiple_of=2)  # half of each domain
    side_px: int = Field(96, ge=16)  # of every picture, which is square


CLIP_VOCABULARY = 49408  # tokens of CLIP's own tokenizer, which is part of open_clip


class VitRecipe(Section):
    """A plain vision transformer, whose patch tokens model.image_encoder can give to the text."""

    patch_px: int = Field(8, ge=4)
    width: int = Field(128, multiple_of=64)  # heads are 64 wide
    layers: int = Field(3, ge=1)


class EncoderRecipe(Section):
    """An image tower and a text transformer, both in open_clip's own form. The tower is a residual network unless `vit`
    is given.

    The defaults take 175 CPU seconds. What is learned in that time is place, colour and, less well, number, but hardly
    shape and texture. Of 500 captions a picture's own one comes first for three fifths of the pictures; with a vision
    transformer of 64 patches (3 layers of width 128), for a fifth.
    """

    seed: int = 1
    steps: int = Field(270, ge=1)
    batch: int = Field(64, ge=2)  # pairs a step, no caption twice
    tags: float | None = Field(None, gt=0)  # weight of a second loss: of what the pictures' embeddings tell (demo.tags)
    learning_rate: float = Field(2e-3, gt=0)  # at its highest
    width: int = Field(128, multiple_of=8)  # of the text tower, and of the embedding
    image_px: int = Field(64, ge=32, multiple_of=32)
    image_width: int = Field(32, multiple_of=2)  # channels after the first convolutions; 32 times as many at the end
    vit: VitRecipe | None = None  # in place of the residual network; {} takes its defaults
    text_layers: int = 2
    text_heads: int = 4
    context: int = Field(32, ge=8)  # tokens; the demo's captions have 14 at most
    threads: int = Field(2, ge=1)

    def open_clip_config(self) -> dict[str, Json]:
        return {
            "model_cfg": {
                "embed_dim": self.width,
                "vision_cfg": {"image_size": self.image_px, "head_width": 64} | self._tower(),
                "text_cfg": {
                    "context_length": self.context,
                    "vocab_size": CLIP_VOCABULARY,
                    "width": self.width,
                    "heads": self.text_heads,
                    "layers": self.text_layers,
                },
            },
            "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
        }

    def _tower(self) -> dict[str, Json]:
        if self.vit is None:
            return {"layers": [1, 1, 1, 1], "width": self.image_width}
        return {"layers": self.vit.layers, "width": self.vit.width, "patch_size": self.vit.patch_px}


@contextlib.contextmanager
def demo_server(recipe: DemoRecipe | None) -> Iterator[None]:
    """Write the demo's lists and answer their urls until the block ends; does nothing without a recipe."""
    if recipe is None:
        yield
        return
    from demo.corpus import make_corpus
    from demo.server import serve

    with serve(port=recipe.port) as server:
        if recipe.port not in (0, server.port):
            raise RecipeError(f"demo.port {recipe.port} is in use on this machine; give another: demo.port=…")
        corpus = make_corpus(recipe.folder, seed=recipe.seed, urls=recipe.urls, base_url=server.base_url)
        server.answers = corpus.answers
        yield
