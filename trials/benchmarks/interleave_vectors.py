"""Pairs to measure mining with: vectors shaped like CLIP's of images and captions that share topics.

Both sides of a pair are √CONE·mean + √(1 − CONE)·deviation (vectors.py). The deviation is √w·topic + √(1 − w)·own,
normalised; w is the pair's. A caption's topic and its own part have cosines with the image's that are given. Few topics
make a dense band.

Shapes: N rows, D width, Q queries. Vectors are a function of the arguments alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt

from stages.index import Vectors
from stages.interleave.band import Band, Floats
from stages.interleave.pairs import Pairs
from stages.neighbors import NONE, RULES, Keys
from trials.benchmarks.exact import InMemory
from trials.benchmarks.vectors import Half, Single, Space, drawn

BLOCK = 16_384  # rows made at once
CLOSENESS = (60.0, 22.0)  # of the beta distribution of w
ZIPF = 0.1  # sizes of topics fall as i^−ZIPF
OWN_AGREES = 0.3
DUPLICATES = 0.02  # share of rows whose image repeats one of the same block
SAMPLED = 20_000  # rows that axes are computed from
ASKED, RANKED = 500, 100  # queries of statistics, and of those of ranks

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    topics: int
    decay: float  # variances along the axes fall as i^−decay
    topics_agree: float

    def blocks(self, rows: int, *, seed: int = 1, width: int = 512, first: int = 0) -> Iterator[tuple[Half, Half]]:
        """Images and captions (≤ BLOCK, D) of N rows in all, of norm 1, from a row that begins a block on."""
        space = Space.of(width, seed, self.decay)
        random = np.random.default_rng([seed, 1])
        topics = drawn(self.topics, space, random)
        caption_topics = _mixed(topics, drawn(self.topics, space, random), self.topics_agree)
        sizes = np.cumsum(np.arange(1, self.topics + 1) ** -ZIPF)
        for start in range(first, rows, BLOCK):
            random = np.random.default_rng([seed, 2, start])
            count = min(BLOCK, rows - start)
            topic = np.searchsorted(sizes, sizes[-1] * random.random(count))
            closeness = np.sqrt(random.beta(*CLOSENESS, size=(count, 1)).astype(np.float32))
            own = drawn(count, space, random)
            images = space.place(space.image_mean, _mixed(topics[topic], own, closeness))
            own = _mixed(own, drawn(count, space, random), OWN_AGREES)
            captions = space.place(space.caption_mean, _mixed(caption_topics[topic], own, closeness))
            again = np.flatnonzero(random.random(count) < DUPLICATES)
            images[again] = images[random.integers(count, size=len(again))]
            yield images, captions


SHAPES = {0.0003: Shape(3000, 1.0, 0.89), 0.001: Shape(830, 1.05, 0.885), 0.01: Shape(76, 1.05, 0.72)}
"""By the share of all pairs whose images are 0.4 to 0.6 apart; the correlation of both sides is near 0.48 in each."""


class Side(InMemory):
    @property
    def rows(self) -> int:
        return len(self.matrix)


class Distinct:
    """Keys of pairs that share nothing."""

    def hashes(self, places: Ids) -> npt.NDArray[np.uint64]:
        own = places.astype(np.uint64) + np.uint64(1)
        return np.stack([np.full_like(own, NONE) if rule == "image_id" else own for rule in RULES])


@dataclass(frozen=True)
class PairSet:
    images: Half  # (N, D)
    captions: Half  # (N, D)

    @classmethod
    def drawn(cls, rows: int, shape: Shape, width: int = 512) -> "PairSet":
        parts: Sequence[Half] = [np.empty((rows, width), np.float16) for _ in range(2)]
        for number, block in enumerate(shape.blocks(rows, width=width)):
            for part, vectors in zip(parts, block, strict=True):
                part[number * BLOCK : number * BLOCK + len(vectors)] = vectors
        return cls(*parts)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def pairs(self) -> Pairs:
        """As mining takes them from files."""
        images, captions = (cast(Vectors, Side(side)) for side in (self.images, self.captions))
        return Pairs(images, captions, cast(Keys, Distinct()), np.ones(len(self), np.bool_))

    @cached_property
    def wide(self) -> tuple[Single, Single]:
        """Images and captions, as the rivals multiply them."""
        return self.images.astype(np.float32), self.captions.astype(np.float32)


@dataclass(frozen=True)
class Statistics:
    """Of ASKED queries with all rows, in float32."""

    cone: float  # mean cosine of two images
    spread: float  # standard deviation of it
    correlation: float  # Pearson's, of a query's image cosines and its caption cosines; mean over queries
    rank_correlation: float  # the same of their ranks, of RANKED queries
    explained: tuple[float, float]  # share of the images' and of the captions' variance along the axes of a bound
    density: float  # share of the pairs that are in the band
    band: tuple[float, float, float]  # pairs a query in it: p5, median, p95
    starved: float  # share of queries with fewer of them than supports

    @classmethod
    def of(cls, some: PairSet, band: Band, supports: int) -> "Statistics":
        ids = np.random.default_rng(3).permutation(len(some))[:ASKED]
        parts = np.split(ids, range(RANKED, len(ids), RANKED))
        images, captions = (side.astype(np.float32) for side in (some.images, some.captions))
        mean, variance, linear, sizes = (
            np.concatenate(column)
            for column in zip(
                *(_look(images[part] @ images.T, captions[part] @ captions.T, band) for part in parts), strict=True
            )
        )
        p5, median, p95 = np.quantile(sizes, [0.05, 0.5, 0.95]).tolist()
        ranks = (_ranks(side[parts[0]] @ side.T) for side in (images, captions))
        return cls(
            cone=float(mean.mean()),
            spread=float(np.sqrt(variance.mean() + mean.var())),
            correlation=float(linear.mean()),
            rank_correlation=float(_correlations(*ranks).mean()),
            explained=(_explained(some.images), _explained(some.captions)),
            density=float(sizes.mean() / len(some)),
            band=(p5, median, p95),
            starved=float((sizes < supports).mean()),
        )

    def __str__(self) -> str:
        p5, median, p95 = self.band
        return (
            f"cosine of two images {self.cone:.2f} ± {self.spread:.3f}; correlation of image and caption cosines "
            f"{self.correlation:.2f}, of their ranks {self.rank_correlation:.2f}; variance along the axes "
            f"{self.explained[0]:.2f} and {self.explained[1]:.2f}; in the band {self.density:.3%}, a query p5 "
            f"{p5:,.0f}, median {median:,.0f}, p95 {p95:,.0f}; starved {self.starved:.1%}"
        )


def _explained(vectors: Half) -> float:
    from stages.interleave.axes import Axes

    sample = vectors[:SAMPLED]
    return Axes.of(sample).explained(sample)


def _look(near: Single, alike: Single, band: Band) -> tuple[Floats, Floats, Floats, Floats]:
    """Image and caption cosines (Q, N) → (Q,) mean and variance of the former, their correlation, size of the band."""
    inside = (near >= band.lowest_cosine) & (near <= band.highest_cosine)
    mean, variance = near.mean(axis=1, dtype=np.float64), near.var(axis=1, dtype=np.float64)
    return mean, variance, _correlations(near, alike), inside.sum(axis=1).astype(np.float64)


def _correlations(one: Single, other: Single) -> Floats:
    """(Q, N) each → (Q,) Pearson's."""
    a, b = (side - side.mean(axis=1, keepdims=True) for side in (one, other))
    product, own, others = (np.einsum("qn,qn->q", *sides, dtype=np.float64) for sides in ((a, b), (a, a), (b, b)))
    correlations: Floats = product / np.sqrt(own * others)
    return correlations


def _ranks(values: Single) -> Single:
    """(Q, N) → of each in its row."""
    ranks = np.empty_like(values)
    np.put_along_axis(ranks, values.argsort(axis=1), np.arange(values.shape[1], dtype=np.float32)[None], axis=1)
    return ranks


def _mixed(one: Single, other: Single, cosine: float | Single) -> Single:
    """Of norm about 1 where both are so and orthogonal; at that cosine to the first."""
    share = np.asarray(cosine, np.float32)
    both: Single = share * one + np.sqrt(1 - share * share) * other
    return both
