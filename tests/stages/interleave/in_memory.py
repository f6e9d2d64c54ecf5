"""Pairs on plain arrays, their supports told the slow obvious way, and vectors at the very edge of a band.

Shapes: N pairs, Q queries, D width, rules as the leakage rules count.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from stages.interleave.pairs import Tile
from stages.interleave.supports import Floats, Half, Hashes, Ids, Queries, Rule, Supports
from stages.neighbors import NONE, RULES
from tests.stages.index.corpora import unit
from trials.benchmarks.vectors import ENCODER, FLICKR

Mask = npt.NDArray[np.bool_]
SAME_PHASH = 0.98  # cosine from which on an equal perceptual hash means the same picture
PER_PICTURE = 5  # captions
AT_ONCE = 256  # queries


@dataclass(frozen=True)
class InMemory:
    """shard_rows: a tile holds rows of one shard only, as those of a corpus do."""

    images: Half  # (N, D)
    captions: Half  # (N, D)
    hashes: Hashes  # (N, rules)
    wanted: Mask  # (N,) whether a pair takes part
    shard_rows: int

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_bytes(self) -> int:
        return self.images.nbytes + self.captions.nbytes + self.hashes.nbytes

    def queries(self, ids: Ids) -> Queries:
        return Queries(self.images[ids], self.captions[ids], self.hashes[ids].T)

    def tiles(self, size: int) -> Iterator[Tile]:
        for first in range(0, len(self), self.shard_rows):
            ids = first + np.flatnonzero(self.wanted[first : first + self.shard_rows])
            for start in range(0, len(ids), size):
                some = ids[start : start + size]
                yield Tile(some, self.images[some], self.captions[some], self.hashes[some])

    def permuted(self, order: Ids) -> "InMemory":
        """Pair n is the one that was order[n]."""
        sides = self.images[order], self.captions[order]
        return InMemory(*sides, self.hashes[order], self.wanted[order], self.shard_rows)


def pairs_of(
    images: Half,
    captions: Half,
    *,
    wanted: Mask | None = None,
    shard_rows: int = 10_000,
    hashes: Mapping[str, npt.ArrayLike] = {},
) -> InMemory:
    """hashes: columns (N,) by their rule; by the others no two pairs are equal."""
    rows = np.arange(1, len(images) + 1, dtype=np.uint64)
    different = dict.fromkeys(RULES, rows) | {"image_id": np.full_like(rows, NONE)}
    columns = [np.asarray(hashes.get(rule, different[rule]), np.uint64) for rule in RULES]
    taking_part = np.ones(len(images), np.bool_) if wanted is None else wanted
    return InMemory(images, captions, np.column_stack(columns), taking_part, shard_rows)


def brute_force(pairs: InMemory, queries: Queries, rule: Rule) -> Supports:
    """All products in float64, of a block of queries at a time; then query by query, everything is sorted."""
    rows = np.flatnonzero(pairs.wanted)
    images, captions = (side[rows].astype(np.float64) for side in (pairs.images, pairs.captions))
    found = Supports.none(len(queries), rule.k)
    for first in range(0, len(queries), AT_ONCE):
        some = queries.part(slice(first, first + AT_ONCE))
        image_cosines = some.images.astype(np.float64) @ images.T
        caption_cosines = some.captions.astype(np.float64) @ captions.T
        for number, (image, caption) in enumerate(zip(image_cosines, caption_cosines, strict=True)):
            inside = (image >= rule.band.lowest_cosine) & (image <= rule.band.highest_cosine)
            inside &= ~barred(some.hashes[:, number], pairs.hashes[rows], image, rule)
            (places,) = inside.nonzero()
            best = places[np.lexsort((rows[places], -caption[places]))][: rule.k]
            here = first + number, slice(len(best))
            found.rows[here] = rows[best]
            found.image_cosines[here], found.caption_cosines[here] = image[best], caption[best]
    return found


def barred(asked: Hashes, hashes: Hashes, image_cosines: Floats, rule: Rule) -> Mask:
    """asked (rules,), hashes (n, rules), image_cosines (n,) → (n,) whether a pair is no candidate, wherever it lies."""
    equal = dict(zip(RULES, (hashes == asked).T, strict=True))
    equal["image_id"] &= asked[RULES.index("image_id")] != NONE
    equal["phash"] &= image_cosines >= SAME_PHASH
    equal["caption"] &= not rule.own_caption
    told: Mask = np.logical_or.reduce([*equal.values()])
    return told


def astride(query: Half, row: Half, bound: float) -> tuple[Half, Half]:
    """Two vectors near `row`, one float16 step of one value apart: the first one's cosine with the query is as little
    above the bound, or on it, as steps of single values lead to, and the second one's is below it."""
    wide, near = query.astype(np.float64), row.copy()
    while True:
        stepped = np.stack([np.nextafter(near, np.float16(end)) for end in (-np.inf, np.inf)])
        change = wide * (stepped.astype(np.float64) - near)
        above = wide @ near - bound
        useful = (change < 0) & (change >= -above) if above >= 0 else change > 0
        if not useful.any():
            break
        side, place = np.unravel_index(np.where(useful, np.abs(change), 0).argmax(), change.shape)
        near[place] = stepped[side, place]
    side, place = np.unravel_index(np.where(change < 0, change, -np.inf).argmax(), change.shape)
    beyond = near.copy()
    beyond[place] = stepped[side, place]
    assert wide @ beyond.astype(np.float64) < bound <= wide @ near.astype(np.float64)
    return near, beyond


def at_cosine(query: Half, cosine: float, random: np.random.Generator) -> Half:
    """A vector of norm 1 in a random direction at about that cosine."""
    wide = query.astype(np.float64)
    drawn = random.standard_normal(len(wide))
    across = drawn - (drawn @ wide) / (wide @ wide) * wide
    (vector,) = unit((cosine * wide + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across))[None])
    told: Half = vector
    return told


def sentence_pairs(data: Path, rows: int) -> InMemory:
    """Flickr8k's captions by a sentence encoder: a caption's vector stands for an image, and that of the next one of
    the same picture for its caption. Skips where the encoder is not installed."""
    encoder = pytest.importorskip(ENCODER, reason=f"pip install {ENCODER.replace('_', '-')}")
    with gzip.open(data / FLICKR) as file:
        captions = [sentence["raw"] for image in json.load(file)["images"] for sentence in image["sentences"]]
    vectors = encoder.load_model("cpu").encode(captions[:rows], batch_size=128, normalize_embeddings=True)
    halves: Half = vectors.astype(np.float16)
    return paired(halves)


def paired(vectors: Half) -> InMemory:
    """vectors (N, D), those of a picture's captions together."""
    numbers = np.arange(len(vectors))
    return pairs_of(vectors, vectors[numbers // PER_PICTURE * PER_PICTURE + (numbers + 1) % PER_PICTURE])
