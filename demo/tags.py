"""What a picture's embedding tells of its scene, asked attribute by attribute: a second objective of the encoder.

The contrastive one alone tells the pictures of a batch apart by place and colour and learns little else: of the two
nearest pictures a fifth show the same object, with 300 steps of both two fifths. Asking for labels beside captions is
what UniCL does (Yang et al. 2022).
Shapes: N scenes, D width of the embedding
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from demo.scenes import COLOURS, COUNTS, OBJECTS, PLACES, TEXTURES, Scene

TAGS = {"object": OBJECTS, "colour": COLOURS, "count": COUNTS, "place": PLACES, "texture": TEXTURES}
SCALE = 10.0  # of embeddings, whose norm is 1: else the logits are too close to each other


class Tags(nn.Module):
    """A linear classifier an attribute; thrown away when the encoder is trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in TAGS.items()})

    def loss(self, images: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """images (N, D) of norm 1 → nats a picture, summed over the attributes."""
        return torch.stack([self._loss(name, images, scenes) for name in TAGS]).sum()

    def _loss(self, name: str, images: Tensor, scenes: Sequence[Scene]) -> Tensor:
        values: Sequence[object] = TAGS[name]
        labels = torch.tensor([values.index(getattr(scene, name)) for scene in scenes])
        return nn.functional.cross_entropy(self.heads[name](SCALE * images), labels)
