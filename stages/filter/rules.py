"""A rule: one number measured on a pair, and the setting that limits it. A new rule is one function, one setting and
one line in a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypedDict, TypeVar

from pipeline.reasons import Reason
from pipeline.recipe import Section

Measured = TypeVar("Measured")


class Pair(TypedDict):
    """What the rules look at. The picture's size is as fetched; the scores nsfw and watermark are the source's."""

    pair_id: str
    source: str
    url: str | None
    caption: str
    original_width: int  # px
    original_height: int
    nsfw: float | None  # 0…1
    watermark: float | None
    clip_score: float  # cosine, −1…1
    sha256: str
    stored_sha256: str


Fault = tuple[Reason, str]
"""Why a pair leaves, and for a person: the setting, its value, and what was found."""


@dataclass(frozen=True)
class Rule(Generic[Measured]):
    """setting: the field that holds the limit, itself allowed; `min_…` or `max_…` says which way. A measure of None
    is not known, and passes."""

    reason: Reason
    setting: str
    measure: Callable[[Measured], float | None]


def first_fault(rules: Sequence[Rule[Measured]], limits: Section, measured: Measured) -> Fault | None:
    """Of the first rule that does not hold. A setting of null switches its rule off; NaN holds no rule."""
    for rule in rules:
        limit = getattr(limits, rule.setting)
        found = None if limit is None else rule.measure(measured)
        if found is None:
            continue
        holds = found >= limit if rule.setting.startswith("min_") else found <= limit
        if not holds:
            return rule.reason, f"{rule.setting} {limit}: found {found:.6g}"
    return None
