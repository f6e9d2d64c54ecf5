"""What a model and an index see of a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from model.evaluation.answerer import Answerer
from model.evaluation.live_index import LiveIndex
from model.training.pictures import decode


@dataclass(frozen=True)
class Seen:
    image: Tensor  # as Chunk takes it: (1, 3, H, W) uint8 pixels, or (1, S, E) patch tokens
    key: Any  # (width,) float32 of norm 1, what the index is asked with; None without one


@dataclass(frozen=True)
class Sight:
    answerer: Answerer
    index: LiveIndex | None

    def see(self, jpegs: Sequence[bytes]) -> list[Seen]:
        """jpegs: as a crawl stores them."""
        vision = self.answerer.model.config.vision
        assert vision is not None, "an answerer's model sees pictures"
        size = vision.encoder.image_size
        keys = self.index.embed(jpegs) if self.index and jpegs else [None] * len(jpegs)
        return [Seen(decode(jpeg, size), key) for jpeg, key in zip(jpegs, keys, strict=True)]
