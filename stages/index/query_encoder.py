"""Texts and pictures of a person as vectors that can be searched for: by the model that embedded the corpus."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from stages.embed import Embedder
from stages.index.database import Database
from stages.index.serving import Scores


@dataclass(frozen=True)
class QueryEncoder:
    """Shapes: Q queries, D width."""

    towers: Any  # as open_towers returns them

    @classmethod
    def of(cls, database: Database) -> "QueryEncoder":
        """The model that the recipe beside the corpus' embeddings names, on this machine's best device.

        Raises InputError where the recipe or the weights are not there, or are not those of the embeddings.
        """
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(Embedder.of(database.readers[0].roots[0], device, to_the_bit=False).open())

    def texts(self, texts: Sequence[str]) -> Scores:
        """→ (Q, D) float32 of norm 1."""
        vectors: Scores = self.towers.encode_texts(texts)
        return vectors

    def pictures(self, paths: Sequence[Path]) -> Scores:
        """Picture files of any format that Pillow reads → (Q, D) float32 of norm 1.

        Raises InputError where one is missing or no picture.
        """
        import torch

        vectors: Scores = self.towers.encode_images(torch.from_numpy(np.stack([self._fit(path) for path in paths])))
        return vectors

    def stored(self, jpegs: Sequence[bytes]) -> Scores:
        """Pictures as a crawl stores them → (Q, D) float32 of norm 1, as those of the corpus are embedded."""
        import torch
        from PIL import Image

        fit = self.towers.fitter()
        pixels = [np.array(fit(Image.open(io.BytesIO(jpeg)))) for jpeg in jpegs]
        vectors: Scores = self.towers.encode_images(torch.from_numpy(np.stack(pixels)))
        return vectors

    def _fit(self, path: Path) -> npt.NDArray[np.uint8]:
        from PIL import Image, ImageOps

        try:
            with Image.open(path) as picture:
                return np.array(self.towers.fitter()(ImageOps.exif_transpose(picture)))
        except (OSError, Image.DecompressionBombError) as error:
            raise InputError(f"{path} is not a picture that can be read: {error}") from None
