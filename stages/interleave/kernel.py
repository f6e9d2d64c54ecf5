"""The inner loop of the sweep, compiled: compare a tile's bounds with each query's floor, look closer at what is left.

Sums may be taken in any order (`reassoc`): in float32 within the error that the caller gives, in float64 without one,
because sums of products of float16 are exact there.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from stages.filter import SAME_IMAGE_COSINE
from stages.neighbors import RULES

STEPS = ("compared", "by_lead", "by_other", "measured", "in_band")
"""Pairs of a query and a row that came so far: all; whose lead's bound reached the floor; the other side's bound too;
whose float32 image cosine may lie in the band; and does, exactly, while the caption may reach the floor."""

# What is compiled is kept by this file alone: change it where the constants that it imports change.
ANY_ORDER = {"reassoc", "contract", "nsz", "nnan"}
PAIR, IMAGE_ID, SHA256, PHASH, CAPTION = (
    RULES.index(rule) for rule in ("pair", "image_id", "sha256", "phash", "caption")
)

compiled: Any = numba.njit(cache=True, nogil=True, fastmath=ANY_ORDER)


@compiled
def look_closer(
    bounds: npt.NDArray[np.float32],  # (Q, T)
    image_leads: bool,  # noqa: FBT001 - numba takes no keywords
    queries: Any,  # images (Q, D), their bounds (Q, 64), captions, their bounds, hashes (Q, rules)
    rows: Any,  # the same of the tile, and its ids (T,)
    errors: npt.NDArray[np.float64],  # of image bounds and products, of caption bounds and products
    band: tuple[float, float],  # lowest and highest image cosine
    own_caption: bool,  # noqa: FBT001
    best: Any,  # rows (Q, k), image cosines and caption cosines: changed in place
    passed: npt.NDArray[np.int64],  # of STEPS: added to
) -> None:
    images, image_bounds, captions, caption_bounds, hashes = queries
    row_images, row_image_bounds, row_captions, row_caption_bounds, row_hashes, ids = rows
    image_slack, image_error, caption_slack, caption_error = errors
    lowest, highest = band
    best_rows, best_images, best_captions = best
    num_queries, num_rows = bounds.shape
    last = best_rows.shape[1] - 1
    left = np.empty(num_rows + 1, np.uint32)  # unsigned: or each index would be asked whether it counts from the end
    for query in range(num_queries):
        image_floor = np.float32(lowest - image_slack)
        # −inf is no number to compute with here; no cosine of finite float16 vectors of this width is as low.
        caption_floor = np.float32(max(best_captions[query, last] - caption_slack, -3e38))
        lead_floor, other_floor = (image_floor, caption_floor) if image_leads else (caption_floor, image_floor)
        other, row_others = (
            (caption_bounds[query], row_caption_bounds) if image_leads else (image_bounds[query], row_image_bounds)
        )
        bound = bounds[query]
        count = np.uint64(0)
        for row in range(num_rows):
            left[count] = np.uint32(row)
            count += np.uint64(bound[row] >= lead_floor)
        kept = np.uint64(0)
        for place in range(count):
            row = left[place]
            left[kept] = row
            kept += np.uint64(_single(other, row_others[row]) >= other_floor)
        passed[1] += count
        passed[2] += kept
        for place in range(kept):
            row = left[place]
            near = _single(images[query], row_images[row])
            if near < lowest - image_error or near > highest + image_error:
                continue
            passed[3] += 1
            worst = best_captions[query, last]
            if _single(captions[query], row_captions[row]) < worst - caption_error:
                continue
            image_cosine = _double(images[query], row_images[row])
            if image_cosine < lowest or image_cosine > highest:
                continue
            passed[4] += 1
            if _barred(hashes[query], row_hashes[row], image_cosine, own_caption):
                continue
            caption_cosine = _double(captions[query], row_captions[row])
            _insert(best_rows[query], best_images[query], best_captions[query], ids[row], image_cosine, caption_cosine)
    passed[0] += num_queries * num_rows


@compiled
def _single(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for place in range(left.shape[0]):
        total += left[place] * right[place]
    return total


@compiled
def _double(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    total = 0.0
    for place in range(left.shape[0]):
        total += np.float64(left[place]) * np.float64(right[place])
    return total


@compiled
def _barred(query: Any, row: Any, image_cosine: float, own_caption: bool) -> bool:  # noqa: FBT001
    """The same picture, or, unless it is wanted, the same caption."""
    named = query[IMAGE_ID] != 0 and query[IMAGE_ID] == row[IMAGE_ID]
    same_hash = query[PHASH] == row[PHASH] and image_cosine >= SAME_IMAGE_COSINE
    same_image = query[PAIR] == row[PAIR] or named or query[SHA256] == row[SHA256] or same_hash
    return same_image or (not own_caption and query[CAPTION] == row[CAPTION])


@compiled
def _insert(rows: Any, images: Any, captions: Any, row: int, image_cosine: float, caption_cosine: float) -> None:
    """In order of caption cosine, largest first, then of rows, smallest first; the last one leaves."""
    place = len(rows)
    while place > 0 and (
        rows[place - 1] < 0
        or caption_cosine > captions[place - 1]
        or (caption_cosine == captions[place - 1] and row < rows[place - 1])
    ):
        place -= 1
    for later in range(len(rows) - 1, place, -1):
        rows[later], images[later], captions[later] = rows[later - 1], images[later - 1], captions[later - 1]
    if place < len(rows):
        rows[place], images[place], captions[place] = row, image_cosine, caption_cosine
