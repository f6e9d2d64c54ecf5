"""Positions in groups: text by the picture or the set of neighbours that it attends to, neighbours by packed rows.

Text is regrouped by its source, so that no position is ever scored against a source that it may not see, a position
without one gets exactly 0, and no softmax has an empty row.

Shapes: B rows, T text positions, N sources, Q positions of the source that most of them attend to, D channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Routing:
    position: Tensor  # (N, Q) int64: index into the B·T positions; unused places hold 0
    place: Tensor  # (B, T) int64: 1 + index into the N·Q places; 0 where a position has no source

    @classmethod
    def of(cls, source: Tensor, sources: int) -> "Routing":
        """source (B, T) int64: 0…sources − 1, or −1 for none."""
        flat = source.flatten()
        order = flat.argsort(stable=True)
        order = order[flat[order] >= 0]
        counts = torch.bincount(flat[order], minlength=sources)
        longest = int(counts.max()) if sources else 0
        first = counts.cumsum(0) - counts
        rank = torch.arange(len(order), device=source.device) - first[flat[order]]
        places = flat[order] * longest + rank
        position = source.new_zeros(sources * longest)
        position[places] = order
        place = torch.zeros_like(flat)
        place[order] = places + 1
        return cls(position.view(sources, longest), place.view_as(source))

    @property
    def reads(self) -> Tensor:
        """(B, T, 1) bool: the positions that have a source."""
        return (self.place > 0).unsqueeze(-1)

    @property
    def used(self) -> Tensor:
        """(N, Q) bool: the places that hold a position."""
        places = self.place.new_zeros(1 + self.position.numel(), dtype=torch.bool)
        return places.index_fill(0, self.place.flatten(), True)[1:].view_as(self.position)  # noqa: FBT003

    def gather(self, text: Tensor) -> Tensor:
        """(B, T, D) → (N, Q, D), anything at unused places."""
        return text.flatten(0, 1)[self.position]

    def scatter(self, grouped: Tensor) -> Tensor:
        """(N, Q, D) → (B, T, D), 0 at positions without a source."""
        flat = grouped.flatten(0, 1)
        return torch.cat((flat.new_zeros(1, flat.shape[1]), flat))[self.place]

    def to(self, device: torch.device | str) -> "Routing":
        return Routing(self.position.to(device), self.place.to(device))
