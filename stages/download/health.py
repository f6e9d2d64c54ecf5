"""Whether a crawl still works: a dead resolver, a cut network or a wall of refusals must not burn a list of urls."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.commits import CommitRecord
from pipeline.errors import ShardFailed
from pipeline.reasons import TRANSIENT, Reason
from stages.download.recipe import DownloadRecipe

if TYPE_CHECKING:
    from stages.download.fetch import Fetched

SOON = 500  # urls of a shard that were asked for, after which it may be given up
FEWEST = 50  # urls that say anything
SHARDS = 3  # that ended, before the run is judged by them


class ShardUnhealthy(ShardFailed):
    """Most of a shard's urls failed for reasons that another time may not have; nothing of it is kept."""

    def __init__(self, urls: int, good: int, reasons: Mapping[str, int]) -> None:
        super().__init__(urls, good, dict(reasons))
        self.urls, self.good, self.reasons = urls, good, Counter(reasons)

    def __str__(self) -> str:
        return (
            f"{leading(self.reasons)}: of {self.urls:,} urls {self.good:,} were fetched, so nothing is committed; see "
            "to the network and the resolver, or raise download.max_transient"
        )


class ShardHealth:
    """Counts what becomes of a shard's urls; those first that hosts take turns with, so the first are a fair sample."""

    def __init__(self, max_transient: float) -> None:
        self._max_transient = max_transient
        self._all: Counter[Reason | None] = Counter()  # None: fetched
        self._asked: Counter[Reason | None] = Counter()

    def count(self, fetched: "Fetched") -> None:
        """Raises ShardUnhealthy as soon as that can be said. Of the first urls only those that were asked for tell: a
        host that is given up ends all of its own at once, and may have a third of the shard's."""
        self._all[fetched.reason] += 1
        if fetched.fetch_ms:
            self._asked[fetched.reason] += 1
            if self._asked.total() == SOON:
                self._judge(self._asked)

    def judge(self) -> None:
        """Raises ShardUnhealthy."""
        self._judge(self._all)

    def _judge(self, ended: Counter[Reason | None]) -> None:
        urls, transient = ended.total(), sum(ended[reason] for reason in TRANSIENT)
        if urls >= FEWEST and transient > self._max_transient * urls:
            reasons = {reason.value: count for reason, count in ended.items() if reason}
            raise ShardUnhealthy(urls, ended[None], reasons)


def alarm(ended: Sequence[CommitRecord | Exception], recipe: DownloadRecipe) -> str:
    """Why the crawl should stop, told by the shards that ended last; empty: it should not."""
    urls, good, reasons, shards = 0, 0, Counter[str](), 0
    for shard in ended:
        if isinstance(shard, ShardUnhealthy):
            urls, good = urls + shard.urls, good + shard.good
            reasons.update(shard.reasons)
        elif isinstance(shard, CommitRecord):
            urls, good = urls + shard.rows_in, good + shard.rows_out
            reasons.update(shard.rejects)
        else:
            continue
        shards += 1
    if shards < SHARDS or urls < FEWEST or good >= recipe.min_success * urls:
        return ""
    return (
        f"of the last {urls:,} urls {good / urls:.1%} gave a picture, and {recipe.min_success:.0%} should "
        f"(download.min_success): {leading(reasons)}. Nothing more is fetched"
    )


def leading(reasons: Mapping[str, int]) -> str:
    """The commonest reasons with their numbers."""
    return ", ".join(f"{reason} {count:,}" for reason, count in Counter(reasons).most_common(3))
