"""Held-out samples with another one's pictures or neighbours, so that the loss tells what these are worth."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import numpy.typing as npt
from torch import Tensor

from model.sequence import Chunk
from model.training.samples import Sample

Numbers = npt.NDArray[np.int64]


def pictures_of(sample: Sample) -> list[Tensor]:
    return [chunk.image for chunk in sample.chunks if chunk.image is not None]


def read_places(sample: Sample) -> list[int]:
    """The chunks whose neighbours are read: those with a picture, in text alone the first."""
    return [place for place, chunk in enumerate(sample.chunks) if chunk.image is not None] or [0]


def has_neighbors(sample: Sample) -> bool:
    return any(caption for chunk in sample.chunks for caption in chunk.neighbors)


def with_pictures(sample: Sample, donor: Sample) -> Sample:
    """All pictures of a donor that has as many."""
    pictures = iter(pictures_of(donor))
    return _changed(
        sample, (chunk if chunk.image is None else replace(chunk, image=next(pictures)) for chunk in sample.chunks)
    )


def with_neighbors(sample: Sample, donor: Sample) -> Sample:
    """All neighbours of a donor with as many pictures: those of its first picture for the first, and so on."""
    sets = (donor.chunks[place].neighbors for place in read_places(donor))
    given = dict(zip(read_places(sample), sets, strict=True))
    return _changed(
        sample, (replace(chunk, neighbors=given.get(place, ())) for place, chunk in enumerate(sample.chunks))
    )


def without_neighbors(sample: Sample) -> Sample:
    return _changed(sample, (replace(chunk, neighbors=()) for chunk in sample.chunks))


def length_buckets(samples: Sequence[Sample], lengths: Sequence[int], size: int) -> list[list[int]]:
    """Places of samples with as many pictures as each other and of much the same length, in buckets of `size`, and of
    one more where a single sample would be left. One alone in its number of pictures stays alone.

    lengths: in tokens. Raises ValueError for a size below 2.
    """
    if size < 2:
        raise ValueError(f"batch_size is {size}; allowed is ≥ 2: samples of a batch exchange pictures and neighbours")
    pictures = [len(pictures_of(sample)) for sample in samples]
    order = sorted(range(len(samples)), key=lambda place: (pictures[place], lengths[place]))
    buckets = []
    for _, alike in groupby(order, key=lambda place: pictures[place]):
        places = list(alike)
        cut = [places[start : start + size] for start in range(0, len(places), size)]
        if len(cut) > 1 and len(cut[-1]) == 1:
            single = cut.pop()
            cut[-1] += single
        buckets += cut
    return buckets


def derangement(buckets: Sequence[Sequence[int]], rng: np.random.Generator) -> Numbers:
    """Of every sample another one of its bucket, each taken once: the bucket in a random order, a place further. Of a
    sample that is alone, itself."""
    donors = np.empty(sum(map(len, buckets)), np.int64)
    for bucket in buckets:
        order = rng.permutation(np.array(bucket, np.int64))
        donors[order] = np.roll(order, 1)
    return donors


def _changed(sample: Sample, chunks: Iterator[Chunk]) -> Sample:
    return replace(sample, chunks=tuple(chunks))
