"""Which pairs show a picture of an evaluation set: equal bytes as fetched, or perceptual hashes that differ in few bits
and image embeddings that agree.

Every pair is compared with every picture by its hash; a cosine is computed only where the hashes are near.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.commits import Whole
from stages.filter.positions import Integers
from stages.filter.recipe import EvaluationRule

BLOCK, COMPARED = 4096, 65_536  # pictures, and pairs of hashes at once: 512 KiB, which stay in the cache
MEASURED = 4096  # cosines at once: 32 MiB at a width of 512

Vectors = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Pictures:
    """n pictures. sha256: of the bytes as fetched; None: not known. vectors: (n, width), of norm 1."""

    sha256: Sequence[str | None]
    phash: npt.NDArray[np.uint64]
    vectors: npt.NDArray[Any]


@dataclass(frozen=True)
class Met:
    """A row, and the picture of a set that it shows, by its number; of several the one of the largest cosine."""

    row: int
    picture: int
    bits: int
    cosine: float


def meetings(pairs: Pictures, of_set: Pictures, rule: EvaluationRule) -> list[Met]:
    """By row, each at most once."""
    found = [*_equal(pairs, of_set), *_near(pairs, of_set, rule)]
    best: dict[int, Met] = {}
    for met in sorted(found, key=lambda met: (met.row, -met.cosine, met.picture)):
        best.setdefault(met.row, met)
    return list(best.values())


@dataclass(frozen=True)
class Hit:
    row: int
    evaluation_set: str
    name: str  # of the picture
    bits: int
    cosine: float

    def __str__(self) -> str:
        return f"{self.evaluation_set}: {self.name} ({self.bits} bits, cosine {self.cosine:.3f})"


def hits(pairs: pa.Table, vectors: Vectors, sets: Whole, rule: EvaluationRule) -> list[Hit]:
    """Of the pairs of a shard with all sets, set by set as the recipe lists them. vectors: (pairs, width)."""
    ours, found = _pictures(pairs, vectors), []
    for shard, params in sets.plan().shards:
        of_set = sets.read(shard)
        rows = of_set.table("pictures")
        met = meetings(ours, _pictures(rows, of_set.array("img_emb")), rule)
        found += [Hit(m.row, params["set"], rows["name"][m.picture].as_py(), m.bits, m.cosine) for m in met]
    return found


def _pictures(rows: pa.Table, vectors: Vectors) -> Pictures:
    return Pictures(rows["sha256"].to_pylist(), rows["phash"].to_numpy(), vectors)


def _equal(pairs: Pictures, of_set: Pictures) -> Iterator[Met]:
    known = {sha256: number for number, sha256 in reversed(list(enumerate(of_set.sha256))) if sha256}
    both = [(row, known[sha256]) for row, sha256 in enumerate(pairs.sha256) if sha256 in known]
    if both:
        rows, pictures = np.array(both, np.int64).T
        yield from _measured(pairs, of_set, rows, pictures, least=-np.inf)


def _near(pairs: Pictures, of_set: Pictures, rule: EvaluationRule) -> Iterator[Met]:
    height = COMPARED // min(BLOCK, len(of_set.phash))
    blocks = product(range(0, len(pairs.phash), height), range(0, len(of_set.phash), BLOCK))
    for row, picture in blocks:
        ours, theirs = pairs.phash[row : row + height], of_set.phash[picture : picture + BLOCK]
        near = np.bitwise_count(ours[:, None] ^ theirs) <= rule.max_bits
        if near.any():
            rows, pictures = np.nonzero(near)
            yield from _measured(pairs, of_set, rows + row, pictures + picture, least=rule.min_cosine)


def _measured(pairs: Pictures, of_set: Pictures, rows: Integers, pictures: Integers, least: float) -> Iterator[Met]:
    """Exact in any order, as in same_picture.py."""
    for start in range(0, len(rows), MEASURED):
        some = slice(start, start + MEASURED)
        ours, theirs = pairs.vectors[rows[some]].astype(np.float64), of_set.vectors[pictures[some]].astype(np.float64)
        cosines = np.einsum("nd,nd->n", ours, theirs)
        bits = np.bitwise_count(pairs.phash[rows[some]] ^ of_set.phash[pictures[some]])
        for hit in np.flatnonzero(cosines >= least):
            yield Met(int(rows[some][hit]), int(pictures[some][hit]), int(bits[hit]), float(cosines[hit]))
