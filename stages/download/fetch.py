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
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from pipeline.reasons import TRANSIENT, Reason
from stages.download.addresses import Target, parse_url
from stages.download.hosts import HostQueues
from stages.download.request import Answer, FetchLimits, Request
from stages.download.transfers import Transfers

TOO_MANY_REQUESTS = 429
TICK_S = 0.05  # how soon the thread notices that the consumer took a body or went away
MAX_WAIT_S = 60.0  # that a server may ask for; whoever asks for more is left to a second pass


@dataclass(frozen=True)
class Fetched:
    index: int  # of the url in the list
    body: bytes | None  # None exactly where there is a reason
    reason: Reason | None
    detail: str
    http_status: int | None  # of the last answer
    fetch_ms: float  # from the first request to the verdict, retries and waits included


def fetch_all(urls: Sequence[str], limits: FetchLimits) -> Iterator[Fetched]:
    """Every url's result, in order of completion, at the latest when `shard_deadline_s` is over.

    A url holds a connection for at most `deadline_s`, redirects and retries included; waits for its host's turn, for a
    retry or for a server that asked for patience do not count. Closing the iterator drops what is under way.
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
    first: float = 0.0  # time.monotonic() of the first request
    began: float = 0.0  # and of the one under way
    held_s: float = 0.0  # a connection, in requests that ended
    redirects: int = 0  # of this attempt
    failure: Answer | None = None  # of the attempt before

    @property
    def host(self) -> str:
        return self.target.host

    @property
    def urgent(self) -> bool:
        return self.first > 0


class _Crawl:
    """The fetching thread's state. The consumer touches `finished`, `taken_bytes` and `abandoned` only."""

    def __init__(self, urls: Sequence[str], limits: FetchLimits) -> None:
        self.finished: queue.SimpleQueue[Fetched | None] = queue.SimpleQueue()  # None: the thread has ended
        self.taken_bytes = 0
        self.abandoned = False
        self._urls = urls
        self._limits = limits
        self._fetched_bytes = 0
        self._queues: HostQueues[_Row] = HostQueues(limits.connections_per_host, limits.share)
        self._given_up: dict[str, Answer] = {}  # by host: what its other rows are told unasked
        self._delayed: list[tuple[float, int, _Row]] = []  # a heap: retries by the time at which they are due
        self._active: dict[object, tuple[Request, _Row]] = {}  # by curl handle
        self._look_again = 0.0  # time.monotonic() at which rows past their deadline are looked for
        self._ends = time.monotonic() + limits.shard_deadline_s

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
                    if time.monotonic() > self._ends:
                        self._stop_all(transfers)
        finally:
            self.finished.put(None)

    def _queue_all(self) -> None:
        for index, url in enumerate(self._urls):
            try:
                target = parse_url(url)
                self._enqueue(_Row(index, target, target))
            except ValueError as fault:
                self.finished.put(Fetched(index, None, Reason.BAD_URL, str(fault), None, 0.0))

    def _enqueue(self, row: _Row) -> None:
        """Unless it is known already what its host would say, or that nobody wants to be asked."""
        if entry := self._limits.opt_outs.entry(row.target):
            self._finish(row, Answer(None, reason=Reason.OPTED_OUT, detail=f"download.opt_out: {entry}"))
        elif row.host in self._given_up:
            self._finish(row, self._given_up[row.host])
        else:
            self._queues.put(row)

    def _fill(self, transfers: Transfers) -> bool:
        """Start what may be started; False when nothing is left to wait for."""
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            self._enqueue(heapq.heappop(self._delayed)[2])
        while self._idle and self._fetched_bytes - self.taken_bytes <= self._limits.window_bytes:
            row = self._queues.take()
            if row is None:
                break
            self._begin(row, transfers)
        return bool(self._active or self._delayed or self._queues)

    def _begin(self, row: _Row, transfers: Transfers) -> None:
        if row.failure and self._left_s(row) <= 0:
            self._queues.release(row.host)
            self._finish(row, row.failure)
            return
        row.began = time.monotonic()
        row.first = row.first or row.began
        request = self._idle.pop()
        request.begin(row.target, self._left_s(row), fresh=row.failure is not None)
        self._active[request.curl] = (request, row)
        transfers.start(request.curl)

    def _stop_overdue(self, transfers: Transfers) -> None:
        """curl's own timeout starts anew where it asks again over another connection, up to five times."""
        now = time.monotonic()
        if now < self._look_again:
            return
        self._look_again = now + TICK_S
        for request, row in list(self._active.values()):
            if self._left_s(row) - (now - row.began) < -TICK_S:
                self._stop(request, row, transfers)

    def _stop(self, request: Request, row: _Row, transfers: Transfers) -> None:
        transfers.stop(request.curl)
        del self._active[request.curl]
        self._settle(request, row, Answer(None, reason=Reason.DEADLINE, detail="no answer in time"))

    def _stop_all(self, transfers: Transfers) -> None:
        late = Answer(None, reason=Reason.DEADLINE, detail=f"the shard's {self._limits.shard_deadline_s:g} s are over")
        self._limits = replace(self._limits, retries=0)
        for request, row in list(self._active.values()):
            self._stop(request, row, transfers)
        for row in [*self._queues.drain(), *(row for _, _, row in self._delayed)]:
            self._finish(row, row.failure or late)
        self._delayed.clear()

    def _settle(self, request: Request, row: _Row, answer: Answer) -> None:
        self._idle.append(request)
        self._queues.release(row.host)
        row.held_s += time.monotonic() - row.began
        if answer.next and row.redirects < self._limits.max_redirects:
            row.redirects += 1
            row.target = answer.next
            self._enqueue(row)
            return
        row.attempts += 1
        backoff_s = self._limits.backoff_s * 2 ** (row.attempts - 1)
        asked_s = _patience(answer, backoff_s)
        if asked_s:
            self._queues.pause(row.host, asked_s)
        if self._tries_again(row, answer) and asked_s <= MAX_WAIT_S:
            row.failure = answer
            row.target, row.redirects = row.origin, 0
            heapq.heappush(self._delayed, (time.monotonic() + max(backoff_s, asked_s), row.index, row))
            return
        if answer.reason is Reason.DNS or asked_s > MAX_WAIT_S:
            self._give_up(row.host, answer)
        if answer.reason is Reason.DEADLINE and row.failure:
            answer = row.failure  # a second try that there was no time for says nothing new
        self._finish(row, answer)

    def _tries_again(self, row: _Row, answer: Answer) -> bool:
        return answer.reason in TRANSIENT and row.attempts <= self._limits.retries and self._left_s(row) > 0

    def _give_up(self, host: str, answer: Answer) -> None:
        """The host has no address, or asked for more patience than there is: its other rows would meet the same."""
        unasked = replace(answer, http_status=None, detail=f"{answer.detail}; told of another url of {host}")
        self._given_up[host] = unasked
        for row in list(self._queues.drain(host)):
            self._finish(row, unasked)

    def _finish(self, row: _Row, answer: Answer) -> None:
        reason, detail = answer.reason, answer.detail
        if answer.next:
            reason, detail = Reason.TOO_MANY_REDIRECTS, f"more than {self._limits.max_redirects} redirects"
        if reason is Reason.BAD_URL:  # the row's own url was parsed; curl is the stricter reader of host names
            reason = Reason.BAD_REDIRECT if row.redirects else reason
        self._fetched_bytes += len(answer.body or b"")
        fetch_ms = 1000 * (time.monotonic() - row.first) if row.first else 0.0
        self.finished.put(Fetched(row.index, answer.body, reason, detail, answer.http_status, fetch_ms))

    def _left_s(self, row: _Row) -> float:
        """Of the deadline when the request under way, if any, began."""
        return self._limits.deadline_s - row.held_s


def _patience(answer: Answer, backoff_s: float) -> float:
    """Seconds for which the whole host is to be left alone; Retry-After beside a final answer (404) is of one url."""
    if answer.reason in TRANSIENT and answer.retry_after_s is not None:
        return answer.retry_after_s
    unnamed = answer.http_status == TOO_MANY_REQUESTS or answer.reason is Reason.DNS  # else all its rows look it up
    return backoff_s if unnamed else 0.0
