"""Which pairs tell of a picture: ranked by truth or by an index, and what the leakage rules leave of them."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Literal

from torch import Tensor

from demo.named import NamedPair
from stages.filter import normalised

Rules = Literal["on", "caption off", "off"]
RANKED = 200  # pairs that an index ranks for a picture: more than have its caption
AT_A_TIME = 512  # pictures whose pairs are ranked


def allowed(pair: NamedPair, ranked: Iterable[NamedPair], rules: Rules, k: int) -> list[NamedPair]:
    """The first k that the leakage rules leave (Re-ViLM §3.3).

    on           not the pair itself, none with its caption, no caption twice
    caption off  not the pair itself
    off          whatever comes first
    """
    kept: list[NamedPair] = []
    told = {normalised(pair.caption)}
    for other in ranked:
        caption = normalised(other.caption)
        if rules == "off" or (rules == "caption off" and other != pair) or (rules == "on" and caption not in told):
            kept.append(other)
            told.add(caption)
        if len(kept) == k:
            break
    return kept


def by_truth(pair: NamedPair, group: Sequence[NamedPair]) -> list[NamedPair]:
    """The pairs of its group as a perfect index has them: itself, other views of what it shows, and the others in a
    random order, which is the pair's own."""
    others = list(group)
    Random(f"neighbours {pair.id}").shuffle(others)
    return sorted(others, key=lambda other: (other != pair, other.caption != pair.caption))


def by_index(queries: Tensor, vectors: Tensor, pairs: Sequence[NamedPair]) -> list[list[NamedPair]]:
    """queries (Q, D), vectors (N, D) of norm 1, of the pairs → for every query RANKED pairs, the most similar first."""
    most = min(RANKED, len(pairs))
    ranked: list[list[NamedPair]] = []
    for first in range(0, len(queries), AT_A_TIME):
        rows = (queries[first : first + AT_A_TIME] @ vectors.T).topk(most).indices
        ranked += [[pairs[row] for row in each] for each in rows.tolist()]
    return ranked
