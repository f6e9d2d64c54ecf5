"""What the model says of held-out samples, and how much of it comes from the captions of their neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from stages.filter import normalised


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """The last chunk of a sample: of five pairs the query, whose prompt the four others are."""

    id: str  # of the sample
    reference: str
    generated: str
    neighbors: tuple[str, ...]  # nearest first, without empty ones
    loss: float  # nats a token, of all captions of the sample

    @property
    def copied(self) -> float:
        """The longest run of words that the caption has in common with a neighbour ÷ its words, 0…1."""
        words = _normal(self.generated).split()
        runs = [longest_run(words, _normal(neighbor).split()) for neighbor in self.neighbors]
        return max(runs, default=0) / max(len(words), 1)

    @property
    def equals_neighbor(self) -> bool:
        return _normal(self.generated) in map(_normal, self.neighbors)


def longest_run(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest run of words that stands in both."""
    return SequenceMatcher(None, left, right, autojunk=False).find_longest_match().size


def _normal(caption: str) -> str:
    """Where no letter and no digit is left, such as of emoji, the caption as it is."""
    return normalised(caption) or caption
