"""Whose turn it is: rows that wait, by host, and how many connections a host may have from this shard.

A host's limit holds over the whole run, and nobody coordinates: each shard at work is told its share (which of how
many), and what does not divide goes round, a turn of TURN_S seconds each by the clock; less where the round of all
would take more than ROUND_S, or among a thousand shards most would end before some host's turn comes. At any time the
shares of a limit add up to it; only a request that is under way when its turn passes on is let finish.
"""

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from zlib import crc32

from pipeline.stage import ALL, Share

TURN_S, ROUND_S = 5.0, 600.0
LOOK_AGAIN_S = 0.5  # how soon a host is found whose turn has come, or whose pause is over


def connections_now(limit: int, host: str, share: Share, clock: float) -> int:
    """This share of a host's `limit` connections. clock: seconds, the same for all shards (time.time())."""
    turn = crc32(host.encode()) + int(clock / min(TURN_S, ROUND_S / share.of))
    goes_round = (share.number + turn) % share.of < limit % share.of
    return limit // share.of + goes_round


class Waits(Protocol):
    @property
    def host(self) -> str:
        """Whom the row has to ask next."""

    @property
    def urgent(self) -> bool:
        """It was begun, so it goes before those that were not."""


Row = TypeVar("Row", bound=Waits)


@dataclass
class HostQueues(Generic[Row]):
    """Hosts take turns, so that whatever the order of the list, neighbours in it do not meet at one host."""

    limit: int  # connections a host, of the whole run
    share: Share = ALL
    _waiting: dict[str, deque[Row]] = field(default_factory=dict)
    _active: Counter[str] = field(default_factory=Counter)  # connections
    _paused: dict[str, float] = field(default_factory=dict)  # host → time.monotonic() until which it wants no request
    _ready: OrderedDict[str, None] = field(default_factory=OrderedDict)  # hosts that may be asked now
    _looked: float = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, row: Row) -> None:
        queue = self._waiting.setdefault(row.host, deque())
        if row.urgent:
            queue.appendleft(row)
        else:
            queue.append(row)
        self._offer(row.host)

    def take(self) -> Row | None:
        """A row whose host may be asked now; it holds a connection until it is released."""
        self._look_again()
        while self._ready:
            host, _ = self._ready.popitem(last=False)
            if not self._may_ask(host):
                continue
            row = self._waiting[host].popleft()
            if not self._waiting[host]:
                del self._waiting[host]
            self._active[host] += 1
            self._offer(host)
            return row
        return None

    def release(self, host: str) -> None:
        self._active[host] -= 1
        if not self._active[host]:
            del self._active[host]
        self._offer(host)

    def pause(self, host: str, seconds: float) -> None:
        """Ask it nothing for so long."""
        self._paused[host] = max(self._paused.get(host, 0.0), time.monotonic() + seconds)

    def drain(self, host: str | None = None) -> Iterator[Row]:
        """All that wait for the host, or for any, and wait no more."""
        for name in [host] if host else list(self._waiting):
            yield from self._waiting.pop(name, ())

    def _offer(self, host: str) -> None:
        if host not in self._ready and self._may_ask(host):
            self._ready[host] = None

    def _may_ask(self, host: str) -> bool:
        if host not in self._waiting or time.monotonic() < self._paused.get(host, 0.0):
            return False
        return self._active[host] < connections_now(self.limit, host, self.share, time.time())

    def _look_again(self) -> None:
        now = time.monotonic()
        if now >= self._looked + LOOK_AGAIN_S:
            self._looked = now
            for host in self._waiting:
                self._offer(host)
