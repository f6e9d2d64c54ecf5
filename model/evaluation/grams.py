"""Captions as tokens, and their n-grams as numbers: what BLEU and CIDEr count.

C captions, the candidate of every image first and then all references, image after image; I images, N = 1…4.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

ORDERS = (1, 2, 3, 4)

Ints = npt.NDArray[np.int64]
Tokenize = Callable[[str], list[str]]


@dataclass(frozen=True)
class Grams:
    """The n-grams of one n. A row is an n-gram of a caption; rows ascend by caption, then by n-gram."""

    caption: Ints
    gram: Ints  # numbers of their own for every n, below `kinds`
    count: Ints  # how often the caption has it
    kinds: int


@dataclass(frozen=True)
class Tokenized:
    """Tokens may hold a no-break space and count as one in ROUGE, as in pycocoevalcap, but as several in n-grams."""

    images: list[str]
    candidates: list[list[str]]  # of every image
    references: list[list[list[str]]]

    @cached_property
    def image(self) -> Ints:
        """(C,)"""
        numbers = np.arange(len(self.images))
        return np.concatenate([numbers, np.repeat(numbers, [len(each) for each in self.references])])

    @cached_property
    def length(self) -> Ints:
        """(C,), words"""
        return np.array([len(each) for each in self._words], np.int64)

    @cached_property
    def grams(self) -> dict[int, Grams]:
        """By n."""
        return dict(zip(ORDERS, _grams(self._words, self.length), strict=True))

    @cached_property
    def _words(self) -> list[list[str]]:
        captions = [*self.candidates, *(each for of_image in self.references for each in of_image)]
        return [" ".join(tokens).split() for tokens in captions]


def tokenized(candidates: Mapping[str, str], references: Mapping[str, Sequence[str]], tokenize: Tokenize) -> Tokenized:
    """Raises ValueError where the two are not of the same images, where there is no image, and where one has no
    reference."""
    _check(candidates, references)
    return Tokenized(
        list(references),
        [tokenize(candidates[image]) for image in references],
        [[tokenize(each) for each in captions] for captions in references.values()],
    )


def _grams(words: Sequence[Sequence[str]], length: Ints) -> Iterator[Grams]:
    """An n-gram is the pair of its first n − 1 words, which have a number already, and its last."""
    numbers: dict[str, int] = {}
    word = np.array([numbers.setdefault(each, len(numbers)) for caption in words for each in caption], np.int64)
    caption = np.repeat(np.arange(len(words)), length)
    gram, kinds = word, len(numbers)
    for order in ORDERS:
        starts = max(len(word) - order + 1, 0)
        if order > 1:
            known, gram = np.unique(gram[:starts] * len(numbers) + word[order - 1 :], return_inverse=True)
            kinds = len(known)
        inside = caption[:starts] == caption[order - 1 :]
        rows, count = np.unique((caption[:starts] * kinds + gram)[inside], return_counts=True)
        yield Grams(rows // max(kinds, 1), rows % max(kinds, 1), count, kinds)


def _check(candidates: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    if not candidates and not references:
        raise ValueError("no image to judge; allowed is one at least")
    told = [
        _named(candidates.keys() - references.keys(), "a caption but no references"),
        _named(references.keys() - candidates.keys(), "references but no caption"),
        _named({image for image, captions in references.items() if not captions}, "an empty list of references"),
        _named({image for image, captions in references.items() if isinstance(captions, str)}, "a text as references"),
    ]
    if any(told):
        raise ValueError(
            f"{'; '.join(filter(None, told))}; allowed is one caption and a list of ≥ 1 references for the same "
            f"images (given: captions of {len(candidates)}, references of {len(references)})"
        )


def _named(images: Iterable[str], have: str) -> str:
    """images: those that have what they should not, or "" where none has."""
    named = sorted(images)
    shown = ", ".join(named[:5]) + (", …" if len(named) > 5 else "")
    return f"{len(named)} images have {have}: {shown}" if named else ""
