"""Calls that wait while others are at work, and are then made together."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Waiting(Generic[Item, Answer]):
    kind: Hashable
    item: Item
    answer: "asyncio.Future[Answer]"


class Batches(Generic[Item, Answer]):
    """One thread works, batch after batch; nobody waits for a batch to fill up.

    work: (kind, items) → an answer of each. Only calls of one kind are made together, and at most so many.
    """

    def __init__(self, work: Callable[[Hashable, Sequence[Item]], Sequence[Answer]], most: int) -> None:
        self._work, self._most = work, most
        self._waiting: deque[_Waiting[Item, Answer]] = deque()
        self._thread = ThreadPoolExecutor(1)
        self._runner: asyncio.Task[None] | None = None

    async def ask(self, kind: Hashable, item: Item) -> Answer:
        """Raises what `work` raises for this item. A call that is given up while it waits is not made."""
        call = _Waiting[Item, Answer](kind, item, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await call.answer

    async def _run(self) -> None:
        while batch := self._next():
            await self._make(batch)

    def _next(self) -> list[_Waiting[Item, Answer]]:
        """The first that waits, and whatever can be made with it."""
        there = [call for call in self._waiting if not call.answer.done()]
        batch = [call for call in there if call.kind == there[0].kind][: self._most]
        chosen = set(map(id, batch))
        self._waiting = deque(call for call in there if id(call) not in chosen)
        return batch

    async def _make(self, batch: Sequence[_Waiting[Item, Answer]]) -> None:
        items = [call.item for call in batch]
        done = asyncio.get_running_loop().run_in_executor(self._thread, self._work, batch[0].kind, items)
        await asyncio.wait([done])
        if error := done.exception():
            if len(batch) > 1:  # one spoils it for none but itself
                for call in batch:
                    await self._make([call])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for call, answer in zip(batch, done.result(), strict=True):
            if not call.answer.done():
                call.answer.set_result(answer)
