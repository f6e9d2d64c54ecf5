"""Keys and values of text that is already read: decoding pays for each position once.

Shapes: L layers, B rows, g heads of keys and values of width w, C columns allocated, T new positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

LayerCache = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""New keys and values (B, g, T, w) → all that may be looked at (B, g, K, w)."""


class KeyValueCache:
    """Allocated once, (L, B, g, C, w); rows may be of unequal length, for the mask hides what a row does not hold."""

    def __init__(self, layers: int, rows: int, heads: int, columns: int, head_width: int, like: Tensor) -> None:
        shape = (layers, rows, heads, columns, head_width)
        # Zeros and not whatever the memory held: a NaN of a column not yet written is one under a mask too.
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)


@dataclass(frozen=True)
class CacheView:
    """A cache as one call sees it."""

    cache: KeyValueCache
    columns: Tensor  # (B, T) int64: where the new positions lie in their rows
    looked_at: int  # columns that the call looks at, from the first

    def layer(self, number: int) -> LayerCache:
        """number: of the layer, from 0."""
        return partial(self._join, number)

    def _join(self, number: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
        all_keys, all_values = self.cache.keys[number], self.cache.values[number]
        all_keys[rows, :, self.columns] = keys.transpose(1, 2).to(all_keys.dtype)
        all_values[rows, :, self.columns] = values.transpose(1, 2).to(all_values.dtype)
        return all_keys[:, :, : self.looked_at], all_values[:, :, : self.looked_at]
