"""Fetch many urls politely and within bounds: one result a url, in order of completion, and never an exception for one.

    for fetched in fetch_all(urls, FetchLimits(contact="https://example.org/crawl")):
        ...

The network runs in a thread of its own, so that a consumer busy with decoding neither stops transfers nor uses up their
deadlines; it starts nothing new while more than `window_bytes` of bodies wait for the consumer.
"""

import heapq
import queue
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from pipeline.reasons import TRANSIENT, Reason
from stages.download.addresses import Target, parse_url
from stages.download.request import Answer, FetchLimits, Request
from stages.download.transfers import Transfers

TICK_S = 0.05  # how soon the thread notices that the consumer took a body or went away


@dataclass(frozen=True)
class Fetched:
    index: int  # of the url in the list
    body: bytes | None  # None exactly where there is a reason
    reason: Reason | None
    detail: str
    http_status: int | None  # of the last answer
    fetch_ms: float  # from the first request to the verdict, retries and waits included


def fetch_all(urls: Sequence[str], limits: FetchLimits) -> Iterator[Fetched]:
    """Every url's result, in order of completion.

    A url costs at most `deadline_s` once its first request began, so n urls end after at most n * deadline_s /
    connections seconds (per host: / connections_per_host). Closing the iterator drops what is under way.
    """
    crawl = _Crawl(urls, limits)
    threading.Thread(target=crawl.run, name="fetch", daemon=True).start()
    try:
        for given in range(len(urls)):
            fetched = crawl.finished.get()
            if fetched is None:
                raise RuntimeError(f"fetching stopped after {given} of {len(urls)} urls; its traceback is above")
            crawl.taken_bytes += len(fetched.body or b"")
            yield fetched
    finally:
        crawl.abandoned = True


@dataclass
class _Row:
    index: int
    origin: Target
    target: Target  # where to ask next: the origin, or where it redirects to
    attempts: int = 0  # that ended
    started: float = 0.0  # time.monotonic() of the first request
    redirects: int = 0  # of this attempt
    failure: Answer | None = None  # of the attempt before


@dataclass
class _HostQueues:
    """Rows that wait, by host: hosts take turns, and none has more than its share of connections."""

    per_host: int
    _waiting: defaultdict[str, deque[_Row]] = field(default_factory=lambda: defaultdict(deque))
    _active: Counter[str] = field(default_factory=Counter)
    _ready: deque[str] = field(default_factory=deque)  # hosts with a row waiting and a connection to spare, each once

    def put(self, row: _Row) -> None:
        """A row whose deadline runs goes first."""
        host = row.target.endpoint
        if row.started:
            self._waiting[host].appendleft(row)
        else:
            self._waiting[host].append(row)
        if len(self._waiting[host]) == 1 and self._active[host] < self.per_host:
            self._ready.append(host)

    def take(self) -> _Row | None:
        if not self._ready:
            return None
        host = self._ready.popleft()
        row = self._waiting[host].popleft()
        self._active[host] += 1
        if self._waiting[host] and self._active[host] < self.per_host:
            self._ready.append(host)
        return row

    def release(self, row: _Row) -> None:
        host = row.target.endpoint
        self._active[host] -= 1
        if self._waiting[host] and self._active[host] == self.per_host - 1:
            self._ready.append(host)


class _Crawl:
    """The fetching thread's state. The consumer touches `finished`, `taken_bytes` and `abandoned` only."""

    def __init__(self, urls: Sequence[str], limits: FetchLimits) -> None:
        self.finished: queue.SimpleQueue[Fetched | None] = queue.SimpleQueue()  # None: the thread has ended
        self.taken_bytes = 0
        self.abandoned = False
        self._urls = urls
        self._limits = limits
        self._fetched_bytes = 0
        self._queues = _HostQueues(limits.connections_per_host)
        self._delayed: list[tuple[float, int, _Row]] = []  # a heap: retries by the time at which they are due
        self._active: dict[object, tuple[Request, _Row]] = {}  # by curl handle
        self._look_again = 0.0  # time.monotonic() at which rows past their deadline are looked for

    def run(self) -> None:
        try:
            with closing(Transfers(self._limits.connections)) as transfers:
                self._idle = [Request(self._limits) for _ in range(self._limits.connections)]
                self._queue_all()
                while not self.abandoned and self._fill(transfers):
                    for ended in transfers.wait(TICK_S):
                        request, row = self._active.pop(ended.curl)
                        self._settle(request, row, request.answer(ended.code, ended.message))
                    self._stop_overdue(transfers)
        finally:
            self.finished.put(None)

    def _stop_overdue(self, transfers: Transfers) -> None:
        """curl's own timeout starts anew where it asks again over another connection, up to five times."""
        now = time.monotonic()
        if now < self._look_again:
            return
        self._look_again = now + TICK_S
        for curl, (request, row) in list(self._active.items()):
            if self._left_s(row) < -TICK_S:
                transfers.stop(request.curl)
                del self._active[curl]
                self._settle(request, row, Answer(None, reason=Reason.DEADLINE, detail="no answer in time"))

    def _queue_all(self) -> None:
        for index, url in enumerate(self._urls):
            try:
                target = parse_url(url)
                self._queues.put(_Row(index, target, target))
            except ValueError as fault:
                self.finished.put(Fetched(index, None, Reason.BAD_URL, str(fault), None, 0.0))

    def _fill(self, transfers: Transfers) -> bool:
        """Start what may be started; False when nothing is left to wait for."""
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            self._queues.put(heapq.heappop(self._delayed)[2])
        while self._idle and self._fetched_bytes - self.taken_bytes <= self._limits.window_bytes:
            row = self._queues.take()
            if row is None:
                return bool(self._active or self._delayed)
            if row.failure and self._left_s(row) <= 0:
                self._queues.release(row)
                self._finish(row, row.failure)
                continue
            row.started = row.started or time.monotonic()
            request = self._idle.pop()
            request.begin(row.target, self._left_s(row), fresh=row.failure is not None)
            self._active[request.curl] = (request, row)
            transfers.start(request.curl)
        return True

    def _settle(self, request: Request, row: _Row, answer: Answer) -> None:
        self._idle.append(request)
        self._queues.release(row)
        if answer.next and row.redirects < self._limits.max_redirects:
            row.redirects += 1
            row.target = answer.next
            self._queues.put(row)
            return
        row.attempts += 1
        wait_s = max(self._limits.backoff_s * 2 ** (row.attempts - 1), answer.retry_after_s)
        if answer.reason in TRANSIENT and row.attempts <= self._limits.retries and wait_s < self._left_s(row):
            row.target, row.redirects, row.failure = row.origin, 0, answer
            heapq.heappush(self._delayed, (time.monotonic() + wait_s, row.index, row))
        elif answer.reason is Reason.DEADLINE and row.failure:
            self._finish(row, row.failure)  # a second try that there was no time for says nothing new
        else:
            self._finish(row, answer)

    def _finish(self, row: _Row, answer: Answer) -> None:
        reason, detail = answer.reason, answer.detail
        if answer.next:
            reason, detail = Reason.TOO_MANY_REDIRECTS, f"more than {self._limits.max_redirects} redirects"
        if reason is Reason.BAD_URL:  # the row's own url was parsed; curl is the stricter reader of host names
            reason = Reason.BAD_REDIRECT if row.redirects else reason
        self._fetched_bytes += len(answer.body or b"")
        fetch_ms = 1000 * (time.monotonic() - row.started)
        self.finished.put(Fetched(row.index, answer.body, reason, detail, answer.http_status, fetch_ms))

    def _left_s(self, row: _Row) -> float:
        return row.started + self._limits.deadline_s - time.monotonic()
