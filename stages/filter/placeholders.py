"""Pictures that show nothing of what is said of them: one under many unrelated captions (a logo, a pixel that counts
visits, "image not available").

Cluster  a picture that repeats no earlier one, and those that repeat it (same_picture.py), in the order of pair ids.
         The captions that a source keeps under one image_id are of one picture here, and one listing: the first counts.
Rule     at least min_captions distinct normalised captions, whose embeddings have over all pairs of two a mean cosine
         of at most max_similarity: all rows of the cluster leave.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import fsum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.filter.normal_form import normalised
from stages.filter.partition import groups, spans
from stages.filter.recipe import Placeholders
from stages.filter.same_picture import Integers, Pictures, kept_copies

BLOCK = 4096  # vectors widened at once: 16 MiB at a width of 512

Vectors = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Placeholder:
    rows: Integers
    captions: int
    similarity: float

    def __str__(self) -> str:
        return f"one picture under {self.captions:,} captions of mean cosine {self.similarity:.3f}"


def placeholders(
    rows: pa.Table, images: Vectors, texts_of: Callable[[Integers], Vectors], rule: Placeholders
) -> list[Placeholder]:
    """rows are sorted by pHash, then pair_id. images: (rows, width). texts_of: (n,) rows → (n, width), their captions'.

    Linear in the rows but for same_picture.py, and no embedding is read of captions that are too few.
    """
    cluster = _clusters(rows, images, rule.min_captions)
    listed = _listed(rows, cluster)
    asked = [listed[start:stop] for start, stop in spans(cluster[listed]) if stop - start >= rule.min_captions]
    texts = texts_of(np.concatenate(asked)) if asked else np.empty((0, 0), np.float16)
    ends = np.cumsum([len(captions) for captions in asked], dtype=np.int64)
    members = _members(cluster)
    found = []
    for captions, end in zip(asked, ends, strict=True):
        similarity = mean_cosine(texts[end - len(captions) : end])
        if similarity <= rule.max_similarity:
            found.append(Placeholder(members(int(cluster[captions[0]])), len(captions), similarity))
    return found


def mean_cosine(vectors: Vectors) -> float:
    """(n, width) of norm 1, n ≥ 2 → the mean of x · y over all pairs of two rows, from Σx alone: no n × n products."""
    num = len(vectors)
    total, squares = np.zeros(vectors.shape[1]), 0.0
    for start in range(0, num, BLOCK):
        block = vectors[start : start + BLOCK].astype(np.float64)
        total += block.sum(axis=0)
        squares += float(np.vdot(block, block))
    return (fsum(total * total) - squares) / (num * (num - 1))


def _clusters(rows: pa.Table, images: Vectors, min_rows: int) -> Integers:
    """(rows,) the first row of the cluster that each one is in; −1: of a cluster too small to matter."""
    stored = groups(rows["stored_sha256"])
    cluster = np.full(rows.num_rows, -1, np.int64)
    for start, stop in spans(rows["phash"].to_numpy()):
        if stop - start >= min_rows:
            no_image_ids = np.full(stop - start, -1, np.int64)
            copy_of = kept_copies(Pictures(images[start:stop], stored[start:stop], no_image_ids))
            cluster[start:stop] = start + np.where(copy_of < 0, np.arange(stop - start), copy_of)
    sizes = np.bincount(cluster[cluster >= 0], minlength=rows.num_rows)
    return np.where((cluster >= 0) & (sizes[cluster] >= min_rows), cluster, -1)


def _listed(rows: pa.Table, cluster: Integers) -> Integers:
    """The rows by which the captions of each cluster count, by cluster: of each listing the first, of each normalised
    caption among them the first."""
    num = rows.num_rows
    candidates = np.flatnonzero(cluster >= 0)
    image = groups(rows["source"], rows["image_id"])[candidates]
    listing = np.where(image >= 0, image, num + candidates)
    firsts = np.sort(candidates[_first_of_each(cluster[candidates] * 2 * num + listing)])
    captions = [normalised(caption) or caption for caption in rows["caption"].take(pa.array(firsts)).to_pylist()]
    caption = groups(pa.chunked_array([pa.array(captions, pa.string())]))
    return firsts[_first_of_each(cluster[firsts] * num + caption)]


def _first_of_each(values: Integers) -> Integers:
    """Where each value first stands, by value."""
    _, first = np.unique(values, return_index=True)
    return np.asarray(first)


def _members(cluster: Integers) -> Callable[[int], Integers]:
    """Cluster → its rows, ascending."""
    order = np.argsort(cluster, kind="stable")
    ordered = cluster[order]
    return lambda number: order[slice(*np.searchsorted(ordered, [number, number + 1]))]
