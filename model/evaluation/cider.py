"""CIDEr-D (Vedantam et al. 2015, as pycocoevalcap computes it, which everybody reports as CIDEr).

A caption is its n-grams, n = 1…4, each weighted by count · (log N − log df): N images, df of them with the n-gram in a
reference. Of candidate c and reference r, for every n and over the n-grams g of both,

    Σ min(c_g, r_g) · r_g ÷ (|c| · |r|) · exp(−Δ² ÷ 72),        Δ: bigrams of c − bigrams of r

and the score is 10 × the mean over n and over the references; papers print it × 100. N and df are of the images given:
the score of a part of a set is no score of the set, and one image alone always has 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.evaluation.bootstrap import Floats
from model.evaluation.grams import ORDERS, Grams, Ints, Tokenize, Tokenized, tokenized
from model.evaluation.ptb_tokenizer import ptb_tokens

VARIANCE = 6.0**2  # of the penalty on another length


@dataclass(frozen=True)
class CiderD:
    score: float  # mean over images, 0…10
    per_image: dict[str, float]  # 0…10


def cider_d(
    *,
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenize: Tokenize = ptb_tokens,
) -> CiderD:
    """candidates: the caption to judge of every image; references: its true ones.

    Raises ValueError where the two are not of the same images, where there is no image, and where one has no reference.
    """
    return cider_d_of(tokenized(candidates, references, tokenize))


def cider_d_of(captions: Tokenized) -> CiderD:
    images = len(captions.images)
    similarity = sum(_similarity(captions.grams[order], captions.image, images) for order in ORDERS)
    bigrams = np.maximum(captions.length - 1, 0)
    delta = bigrams[images:] - bigrams[captions.image[images:]]
    similarity = similarity / len(ORDERS) * np.exp(-(delta**2) / (2 * VARIANCE))
    of_image = captions.image[images:]
    found = 10 * np.bincount(of_image, similarity, images) / np.bincount(of_image, minlength=images)
    return CiderD(float(found.mean()), dict(zip(captions.images, found.tolist(), strict=True)))


def _similarity(grams: Grams, image: Ints, images: int) -> Floats:
    """→ (R,), of every reference and its image's candidate, whose number is the image's; 0 where one has no n-gram."""
    first = int(np.searchsorted(grams.caption, images))  # row of references
    weight = grams.count * _rarity(grams, image, images, first)[grams.gram]
    norm = np.sqrt(np.bincount(grams.caption, weight**2, len(image)))
    key = image[grams.caption] * grams.kinds + grams.gram
    theirs = _looked_up(key[first:], key[:first], weight[:first])
    shared = np.minimum(theirs, weight[first:]) * weight[first:]
    products = np.bincount(grams.caption[first:] - images, shared, len(image) - images)
    norms = norm[image[images:]] * norm[images:]
    cosines: Floats = np.divide(products, norms, out=np.zeros(len(norms)), where=norms > 0)
    return cosines


def _rarity(grams: Grams, image: Ints, images: int, first: int) -> Floats:
    """→ (kinds,): log N − log df, where df 0 counts as 1."""
    in_images = np.unique(grams.gram[first:] * images + image[grams.caption[first:]]) // images
    rarity: Floats = np.log(images) - np.log(np.maximum(np.bincount(in_images, minlength=grams.kinds), 1))
    return rarity


def _looked_up(keys: Ints, known: Ints, values: Floats) -> Floats:
    """known: ascending. → the values of keys, 0 for those that are not known."""
    if not len(known):
        return np.zeros(len(keys))
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, values[place], 0.0)
