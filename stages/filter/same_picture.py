"""Which pictures of one perceptual hash show the same: equal stored bytes, or image embeddings of cosine ≥ 0.98.

The hash alone confuses flat pictures; two pictures that a source itself keeps under one image_id are never each
other's duplicates, since one picture may carry several captions.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SAME_IMAGE_COSINE = 0.98  # under one perceptual hash
BLOCK, KEPT_BLOCK = 256, 4096  # rows compared at once: 256 × 4096 float64 are 8 MiB

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """n pictures of one perceptual hash in the order of their pair ids.

    vectors: (n, width) float16, of norm 1. stored: (n,) equal where the stored bytes are. image: (n,) equal where the
    source's image_id is, −1 where it has none.
    """

    vectors: npt.NDArray[np.float16]
    stored: Integers
    image: Integers

    def same(self, rows: Integers, others: Integers) -> npt.NDArray[np.bool_]:
        """(rows, others). Exact in any order: float64 holds sums below 2 of products of float16 unrounded."""
        cosines = self.vectors[rows].astype(np.float64) @ self.vectors[others].astype(np.float64).T
        equal = self.stored[rows, None] == self.stored[others]
        one_image = (self.image[rows, None] == self.image[others]) & (self.image[rows, None] >= 0)
        same: npt.NDArray[np.bool_] = ((cosines >= SAME_IMAGE_COSINE) | equal) & ~one_image
        return same


def kept_copies(pictures: Pictures) -> Integers:
    """(n,) the first kept picture that each one repeats; −1: it is kept itself.

    Greedy in order against kept pictures only: a picture like a dropped one, but like no kept one, is kept. Thousands
    of flat pictures under one hash cost matrix products, not a Python loop over pairs.
    """
    num = len(pictures.stored)
    copy_of = np.full(num, -1, np.int64)
    kept = np.empty(0, np.int64)
    for start in range(0, num, BLOCK):
        block = np.arange(start, min(start + BLOCK, num))
        copy_of[block] = _first_same(pictures, block, kept)
        block = block[copy_of[block] < 0]
        copy_of[block] = _settle(block, pictures.same(block, block))
        kept = np.concatenate([kept, block[copy_of[block] < 0]])
    return copy_of


def _first_same(pictures: Pictures, block: Integers, kept: Integers) -> Integers:
    found = np.full(len(block), -1, np.int64)
    for start in range(0, len(kept), KEPT_BLOCK):
        others = kept[start : start + KEPT_BLOCK]
        open_rows = np.flatnonzero(found < 0)
        same = pictures.same(block[open_rows], others)
        hit = same.any(axis=1)
        found[open_rows[hit]] = others[same[hit].argmax(axis=1)]
    return found


def _settle(block: Integers, same: npt.NDArray[np.bool_]) -> Integers:
    """Among the rows of a block, none of which repeats an earlier kept one."""
    copy_of = np.full(len(block), -1, np.int64)
    for row in range(1, len(block)):
        earlier = same[row, :row] & (copy_of[:row] < 0)
        if earlier.any():
            copy_of[row] = block[earlier.argmax()]
    return copy_of
