"""The demo's sections of a recipe, without the machinery behind them: it is loaded only where a recipe asks for it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from pipeline.errors import RecipeError
from pipeline.recipe import Section


class DemoRecipe(Section):
    folder: Path  # where the url lists and the truth about them are written
    seed: int = 1
    urls: int = Field(3000, ge=200)
    port: int = Field(8791, ge=0)  # 0: any free one; the lists then differ from run to run

    @property
    def truth(self) -> Path:
        return self.folder / "truth.parquet"


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
