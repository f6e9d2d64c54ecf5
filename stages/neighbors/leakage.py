"""Which candidates a query must not be shown (Re-ViLM §3.3: c_j ≠ C, i_j ≠ I).

A candidate is the same image where its pair_id, its image_id in one source, or its stored bytes are the query's, or its
perceptual hash is and the cosine of both image vectors is at least 0.98; it has the same caption where the normal forms
are equal. Each is counted under the first rule that applies, in this order.
Shapes: Q queries, R candidates of each, D width, k wanted.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from stages.filter import SAME_IMAGE_COSINE
from stages.index import Vectors, exact_similarity
from stages.neighbors.keys import NONE, RULES, Hashes, Keys

KEPT = len(RULES)  # where no rule applies; below it, the number of the first one that does
NOTHING = KEPT + 1  # no candidate

COMPARED = 16_384  # pairs whose vectors are held at once: 67 MB at width 512

Ids = npt.NDArray[np.int64]
Half = npt.NDArray[np.float16]
Marks = npt.NDArray[np.int8]


class Images(Protocol):
    """(Q, D): an array, or what reads its rows when they are asked for."""

    def __getitem__(self, rows: Ids, /) -> Half: ...


def first_broken(places: Ids, asked: Hashes, asked_images: Images, keys: Keys, images: Vectors) -> Marks:
    """places (Q, R) of the candidates, −1: none; asked (rules, Q) and asked_images (Q, D) of the queries → (Q, R)."""
    marks = np.full(places.shape, NOTHING, np.int8)
    query, rank = np.nonzero(places >= 0)
    found = places[query, rank]
    broken = asked[:, query] == keys.hashes(found)
    broken[RULES.index("image_id")] &= asked[RULES.index("image_id"), query] != NONE
    hashed = np.flatnonzero(broken[RULES.index("phash")])
    for first in range(0, len(hashed), COMPARED):
        some = hashed[first : first + COMPARED]
        broken[RULES.index("phash"), some] = _alike(images, asked_images[query[some]], found[some])
    marks[query, rank] = np.where(broken.any(axis=0), broken.argmax(axis=0), KEPT)
    return marks


def kept_and_removed(marks: Marks, k: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
    """marks (Q, R), best candidate first → which of them are the k that stay (Q, R), and how many each rule removed
    before the last of these (Q, rules): of all that were looked at, where fewer than k stay."""
    free = marks == KEPT
    rank = np.cumsum(free, axis=1)
    before = rank < k
    removed = [(before & (marks == rule)).sum(axis=1, dtype=np.int32) for rule in range(len(RULES))]
    return free & (rank <= k), np.stack(removed, axis=1)


def _alike(images: Vectors, asked_images: Half, places: Ids) -> npt.NDArray[np.bool_]:
    """asked_images (n, D), places (n,) → (n,)"""
    near: npt.NDArray[np.bool_] = exact_similarity(images, asked_images, places[:, None])[:, 0] >= SAME_IMAGE_COSINE
    return near
