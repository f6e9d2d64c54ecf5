"""Attention, once for every part of the model.

Shapes: N rows, h heads, g heads of keys and values (g divides h), Q queries, K keys, w width of a head.
"""

from contextlib import nullcontext

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

KeysValues = tuple[Tensor, Tensor]
"""(N, g, K, w) each."""


def split_heads(x: Tensor, head_width: int) -> Tensor:
    """(N, Q, h·w) → (N, h, Q, w)."""
    return x.view(*x.shape[:2], x.shape[2] // head_width, head_width).transpose(1, 2)


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, *, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """queries (N, h, Q, w), keys and values (N, g, K, w) → (N, Q, h·w).

    mask: bool, broadcast to (N, 1, Q, K), True where a query may look. Every query must have a key to look at: what
    an empty row of a mask gives differs from kernel to kernel (0, an average over all keys, NaN), so callers leave
    such queries out.
    """
    assert not causal or queries.shape[2] == keys.shape[2], "torch would align the two from the left"
    grouped = queries.shape[1] != keys.shape[1]
    # Flash attention refuses an empty batch, which text without pictures gives (pytorch#133780).
    with sdpa_kernel(SDPBackend.MATH) if len(queries) == 0 else nullcontext():
        out = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=grouped
        )
    return out.transpose(1, 2).flatten(2)
