"""ROUGE-L (Lin 2004) as pycocoevalcap computes it: the longest common subsequence of words with a reference.

    (1 + β²) · P · R ÷ (R + β² · P),      β = 1.2

P: the longest of them ÷ words of the candidate; R: the largest of (it ÷ words of that reference). They may come from
two references, so that the score may be above that of the best one. The score of a set is the mean over images.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model.evaluation.grams import Tokenize, Tokenized, tokenized
from model.evaluation.ptb_tokenizer import ptb_tokens

BETA = 1.2


@dataclass(frozen=True)
class RougeL:
    score: float  # mean over images, 0…1
    per_image: dict[str, float]  # 0…1


def rouge_l(
    *,
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenize: Tokenize = ptb_tokens,
) -> RougeL:
    """Takes and raises what cider_d does."""
    return rouge_l_of(tokenized(candidates, references, tokenize))


def rouge_l_of(captions: Tokenized) -> RougeL:
    scores = map(_of_image, captions.candidates, captions.references)
    per_image = dict(zip(captions.images, scores, strict=True))
    return RougeL(sum(per_image.values()) / len(per_image), per_image)


def _of_image(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    candidate = candidate or [""]  # pycocoevalcap splits an empty caption into one empty word
    references = [each or [""] for each in references]
    places: dict[str, int] = defaultdict(int)
    for place, word in enumerate(candidate):
        places[word] |= 1 << place
    common = [_longest_common(places, len(candidate), each) for each in references]
    precision = max(common) / len(candidate)
    recall = max(longest / len(each) for longest, each in zip(common, references, strict=True))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _longest_common(places: Mapping[str, int], length: int, words: Sequence[str]) -> int:
    """Of a text of `length` words, of which `places` has a bit for every place where the word stands: a row of the
    table is a number whose zeros are its steps (Hyyrö 2004), so a word costs a handful of operations."""
    everywhere = (1 << length) - 1
    row = everywhere
    for word in words:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & everywhere
    return length - row.bit_count()
