"""What was checked, how often, and every fault: counted by kind, the first ten of each kind by name."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from stages.neighbors.verify.rules import Mask

SHOWN = 10  # faults of one kind
Z95 = 1.959964


class Check(StrEnum):
    """In the order of the report; what is counted as checked, in words."""

    FILES = "corpus shards have one whole file"
    ROWS = "rows stand at their pair's place"
    SIZES = "rows list k less their shortfall"
    ORDER = "rows are in order of similarity"
    TWICE = "rows list no neighbour twice"
    IDS = "neighbours are rows of a database"
    ALIVE = "neighbours may be found"
    PAIR_IDS = "neighbours bear their row's pair id"
    CAPTIONS = "neighbours bear their row's caption"
    SIMILARITY = "neighbours' similarity is exact"
    PAIR = "neighbours are not the query's pair"
    IMAGE_ID = "neighbours have not the query's image_id"
    SHA256 = "neighbours have not the query's bytes"
    PHASH = "neighbours have not the query's phash"
    CAPTION = "neighbours have not the query's caption"
    MEMBERS = "sampled rows list what brute force finds"
    REMOVED = "sampled rows count removals as brute force"
    SAMPLE_FILES = "shards of samples have a whole file"
    SAMPLE_COLUMNS = "samples' columns agree with each other"
    SAMPLE_ROWS = "samples' pairs are rows of the corpus"
    SAMPLE_PAIRS = "samples' pairs bear their row's columns"
    SAMPLE_ONCE = "samples have a query of their own"
    SAMPLE_SIZES = "samples have as many supports as asked for"
    DISTINCT = "samples hold no pair twice"
    SAME_IMAGE = "supports have not the query's image"
    OWN_CAPTION = "supports have not the query's caption"
    BAND = "supports' images are in the band"
    DISTANCE = "supports' distance is exact"
    CAPTION_SIMILARITY = "supports' caption similarity is exact"
    RANKED = "supports are in order of caption similarity"
    STORED = "samples' neighbours are stored ones"
    STORED_ORDER = "samples' neighbours are in their stored order"
    LEFT_OUT = "stored neighbours left out are leaks"
    OPTIMAL = "queries have the supports of brute force"


LEAKS = (Check.PAIR, Check.IMAGE_ID, Check.SHA256, Check.PHASH, Check.CAPTION)
"""As rules.RULES."""


@dataclass(frozen=True)
class Recall:
    """Of the sampled queries that have something to find."""

    k: int
    queries: int
    share: float

    def interval(self) -> tuple[float, float]:
        """95 %, after Wilson."""
        share, num = self.share, self.queries
        middle = (share + Z95**2 / (2 * num)) / (1 + Z95**2 / num)
        half = Z95 / (1 + Z95**2 / num) * math.sqrt(share * (1 - share) / num + (Z95 / (2 * num)) ** 2)
        return max(middle - half, 0.0), min(middle + half, 1.0)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"recall@{self.k} {self.share:.4f} (95 %: {low:.4f} to {high:.4f}) of {self.queries:,} sampled rows"


@dataclass
class Findings:
    checked: Counter[Check] = field(default_factory=Counter)
    faults: Counter[Check] = field(default_factory=Counter)
    examples: dict[Check, list[str]] = field(default_factory=dict)
    recall: Recall | None = None
    sampling: str = ""  # what was recomputed, in words

    def judge(self, check: Check, wrong: Mask, tell: Callable[[int], str]) -> None:
        """wrong (n,): one for each thing checked. tell: the name of the i-th."""
        numbers = np.flatnonzero(wrong)
        self.checked[check] += len(wrong)
        self.faults[check] += len(numbers)
        shown = self.examples.setdefault(check, [])
        shown += [tell(int(number)) for number in numbers[: SHOWN - len(shown)]]

    def refuse(self, check: Check, told: str) -> None:
        self.judge(check, np.ones(1, np.bool_), lambda _: told)

    def accept(self, check: Check) -> None:
        self.checked[check] += 1

    @property
    def exit_code(self) -> int:
        return 1 if self.faults.total() else 0

    def __str__(self) -> str:
        lines = [f"{'checked':>13}  {'faults':>9}"]
        for check in Check:
            if check not in self.checked:
                continue
            lines.append(f"{self.checked[check]:13,}  {self.faults[check]:9,}  {check}")
            lines += [f"{'':26}{example}" for example in self.examples.get(check, ())]
        return "\n".join([*lines, "", *([str(self.recall)] if self.recall else []), self.sampling, self._verdict()])

    def _verdict(self) -> str:
        if self.exit_code:
            return f"{self.faults.total():,} fault{'s' if self.faults.total() > 1 else ''}"
        return (
            f"No leak: all {self.checked[Check.IDS]:,} neighbours of all {self.checked[Check.ROWS]:,} rows keep every "
            "rule against their query."
        )
