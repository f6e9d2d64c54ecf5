"""What is looked for: of every query, the pairs in the band of its image whose captions are most similar to its own.

Shapes: Q queries, D width, k supports.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stages.interleave.band import Band

Ids = npt.NDArray[np.int64]
Half = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Rule:
    """A candidate's image lies in the band of the query's and shows another picture; of the candidates, the k of the
    largest caption cosine are the supports, and of equal ones those of the smallest rows."""

    band: Band
    k: int
    own_caption: bool = True  # False: no pair with the query's own caption either


@dataclass(frozen=True)
class Queries:
    images: Half  # (Q, D)
    captions: Half  # (Q, D)
    hashes: Hashes  # (rules, Q) as the leakage rules compare

    def __len__(self) -> int:
        return len(self.images)

    def part(self, numbers: slice | Ids) -> "Queries":
        return Queries(self.images[numbers], self.captions[numbers], self.hashes[:, numbers])


@dataclass(frozen=True)
class Supports:
    """Best first. Behind the last: row −1, cosines −inf."""

    rows: Ids  # (Q, k)
    image_cosines: Floats  # (Q, k) exact
    caption_cosines: Floats  # (Q, k) exact

    @classmethod
    def none(cls, queries: int, k: int) -> "Supports":
        lowest = np.full((queries, k), -np.inf)
        return cls(np.full((queries, k), -1, np.int64), lowest, lowest.copy())

    def part(self, queries: slice) -> "Supports":
        """A view."""
        return Supports(self.rows[queries], self.image_cosines[queries], self.caption_cosines[queries])

    def add(self, query: Ids, row: Ids, image_cosine: Floats, caption_cosine: Floats) -> None:
        """Candidates, (n,) each: the best of both stay."""
        k = self.rows.shape[1]
        touched, place = np.unique(query, return_inverse=True)
        every = np.concatenate([np.repeat(np.arange(len(touched)), k), place])
        columns = [
            np.concatenate([known[touched].ravel(), new])
            for known, new in zip(vars(self).values(), (row, image_cosine, caption_cosine), strict=True)
        ]
        order = np.lexsort((columns[0], -columns[2], every))
        kept = order[np.searchsorted(every[order], np.arange(len(touched)))[:, None] + np.arange(k)]
        for known, column in zip(vars(self).values(), columns, strict=True):
            known[touched] = column[kept]

    @property
    def found(self) -> npt.NDArray[np.int64]:
        """(Q,) how many."""
        count: npt.NDArray[np.int64] = (self.rows >= 0).sum(axis=1)
        return count


class Engine(Protocol):
    """Every engine gives the same bits."""

    def mine(self, queries: Queries) -> Supports: ...
