"""CIDEr-D (Vedantam et al. 2015, as pycocoevalcap computes it, which everybody reports as CIDEr).

A caption is its n-grams, n = 1…4, each weighted by count · (log N − log df): N images, df of them with the n-gram in a
reference. Of candidate c and reference r, for every n and over the n-grams g of both,

    Σ min(c_g, r_g) · r_g ÷ (|c| · |r|) · exp(−Δ² ÷ 72),        Δ: bigrams of c − bigrams of r

and the score is 10 × the mean over n and over the references; papers print it × 100. N and df are of the images given:
the score of a part of a set is no score of the set, and one image alone always has 0.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

ORDERS = (1, 2, 3, 4)
VARIANCE = 6.0**2  # of the penalty on another length

Gram = tuple[str, ...]
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True)
class CiderD:
    score: float  # mean over images, 0…10
    per_image: dict[str, float]  # 0…10


def words(caption: str) -> list[str]:
    """Lower case, punctuation dropped; an apostrophe inside a word stays.

    Not the Penn Treebank rules that published scores are made with (`isn't` is one word here, two there), so that
    figures compare with each other and not with the literature.
    """
    return _WORD.findall(unicodedata.normalize("NFC", caption).lower())


def cider_d(
    *,
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenize: Callable[[str], list[str]] = words,
) -> CiderD:
    """candidates: the caption to judge of every image; references: its true ones.

    Raises ValueError where the two are not of the same images, where there is no image, and where one has no reference.
    """
    _check(candidates, references)
    true = {image: [_grams(tokenize(each)) for each in captions] for image, captions in references.items()}
    images_with = Counter(gram for captions in true.values() for gram in {gram for each in captions for gram in each})
    weight = {gram: log(len(true)) - log(count) for gram, count in images_with.items()}
    unseen = log(len(true))

    def vector(grams: Counter[Gram]) -> _Vector:
        return _Vector.of({gram: count * weight.get(gram, unseen) for gram, count in grams.items()}, grams)

    per_image = {}
    for image, captions in true.items():
        candidate = vector(_grams(tokenize(candidates[image])))
        similarities = [candidate.similarity(vector(each)) for each in captions]
        per_image[image] = 10 * sum(similarities) / len(similarities)
    return CiderD(sum(per_image.values()) / len(per_image), per_image)


@dataclass(frozen=True)
class _Vector:
    """The weighted n-grams of a caption."""

    weights: list[dict[Gram, float]]  # of every n
    norms: list[float]
    bigrams: int

    @classmethod
    def of(cls, weighted: Mapping[Gram, float], grams: Counter[Gram]) -> "_Vector":
        weights: list[dict[Gram, float]] = [{} for _ in ORDERS]
        for gram, weight in weighted.items():
            weights[len(gram) - 1][gram] = weight
        norms = [sqrt(sum(weight**2 for weight in each.values())) for each in weights]
        return cls(weights, norms, sum(count for gram, count in grams.items() if len(gram) == 2))

    def similarity(self, reference: "_Vector") -> float:
        total = 0.0
        for order, mine in enumerate(self.weights):
            theirs = reference.weights[order]
            shared = sum(min(weight, theirs[gram]) * theirs[gram] for gram, weight in mine.items() if gram in theirs)
            if shared:
                total += shared / (self.norms[order] * reference.norms[order])
        return total / len(ORDERS) * exp(-((self.bigrams - reference.bigrams) ** 2) / (2 * VARIANCE))


def _grams(tokens: Sequence[str]) -> Counter[Gram]:
    return Counter(gram for order in ORDERS for gram in zip(*(tokens[start:] for start in range(order)), strict=False))


def _check(candidates: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    if not references:
        raise ValueError("no image to judge; allowed is one at least")
    if apart := sorted(candidates.keys() ^ references.keys()):
        raise ValueError(
            f"image {apart[0]} has a candidate or references but not both, and so have {len(apart) - 1} more"
        )
    for image, captions in references.items():
        if isinstance(captions, str) or not captions:
            raise ValueError(f"the references of image {image} are {captions!r}; allowed is a list of captions, ≥ 1")
