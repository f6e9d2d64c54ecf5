"""BLEU-1…4 (Papineni et al. 2002) over a whole set, as pycocoevalcap computes it.

    BLEU-n = (Π_{k ≤ n} correct_k ÷ guessed_k)^(1 ÷ n) · min(1, exp(1 − r ÷ c))

correct: n-grams of the candidates, each counted at most as often as in the reference of its image that has it most;
c, r: words of the candidates, and of the references closest in length (of two equally close the shorter). Counts are
summed over images first: the mean of the images' scores is another figure. pycocoevalcap's one rule holds for a set of
one image too; the average length that its BleuScorer has for that case is never asked for by its Bleu.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.evaluation.bootstrap import Floats
from model.evaluation.grams import ORDERS, Grams, Ints, Tokenize, Tokenized, tokenized
from model.evaluation.ptb_tokenizer import ptb_tokens

TINY, SMALL = 1e-15, 1e-9  # pycocoevalcap's, which keep 0 ÷ 0 a number


@dataclass(frozen=True)
class Bleu:
    scores: tuple[float, ...]  # BLEU-1…4 of the set, 0…1
    per_image: dict[str, tuple[float, ...]]
    counts: Floats  # (I, 10) of every image: 4 correct, 4 guessed, words, words of the closest reference


def bleu(
    *,
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenize: Tokenize = ptb_tokens,
) -> Bleu:
    """Takes and raises what cider_d does."""
    return bleu_of(tokenized(candidates, references, tokenize))


def bleu_of(captions: Tokenized) -> Bleu:
    images = len(captions.images)
    words = captions.length[:images]
    correct = [_correct(captions.grams[order], captions.image, images) for order in ORDERS]
    guessed = [np.maximum(words - order + 1, 0) for order in ORDERS]
    counts = np.stack([*correct, *guessed, words, _closest(captions)], axis=1).astype(np.float64)
    per_image = zip(captions.images, map(tuple, bleu_of_counts(counts).tolist()), strict=True)
    return Bleu(tuple(bleu_of_counts(counts.sum(0)).tolist()), dict(per_image), counts)


def bleu_of_counts(counts: Floats) -> Floats:
    """counts (…, 10), as in Bleu, summed over the images of a set → (…, 4)."""
    correct, guessed, words, closest = counts[..., :4], counts[..., 4:8], counts[..., 8], counts[..., 9]
    precision = np.cumprod((correct + TINY) / (guessed + SMALL), axis=-1) ** (1 / np.array(ORDERS))
    ratio = (words + TINY) / (closest + SMALL)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))[..., None]


def _correct(grams: Grams, image: Ints, images: int) -> Ints:
    """→ (I,)"""
    first = int(np.searchsorted(grams.caption, images))  # row of references
    key = image[grams.caption] * grams.kinds + grams.gram
    known, place = np.unique(key, return_inverse=True)
    most = np.zeros(len(known), np.int64)
    np.maximum.at(most, place[first:], grams.count[first:])
    clipped = np.minimum(grams.count[:first], most[place[:first]])
    return np.bincount(grams.caption[:first], clipped, images).astype(np.int64)


def _closest(captions: Tokenized) -> Ints:
    """→ (I,)"""
    images = len(captions.images)
    of_image, length = captions.image[images:], captions.length[images:]
    order = np.lexsort((length, np.abs(length - captions.length[of_image]), of_image))
    _, first = np.unique(of_image[order], return_index=True)
    return length[order][first]
