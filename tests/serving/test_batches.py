"""Calls that wait are made together, and nobody pays for that with a wrong answer."""

import asyncio
import threading
from collections.abc import Hashable, Sequence

import pytest

from model.serving.batches import Batches


class Doubling:
    """Numbers, once it may begin; refuses batches that hold a 13."""

    def __init__(self) -> None:
        self.begin = threading.Event()
        self.batches: list[tuple[Hashable, list[int]]] = []

    def __call__(self, kind: Hashable, items: Sequence[int]) -> list[int]:
        self.begin.wait()
        self.batches.append((kind, list(items)))
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


async def answers(work: Doubling, calls: Sequence[tuple[str, int]]) -> list[int | BaseException]:
    """All are asked before the first may begin."""
    batches = Batches[int, int](work, most=3)
    asking = [asyncio.create_task(batches.ask(kind, item)) for kind, item in calls]
    await asyncio.sleep(0)
    work.begin.set()
    return await asyncio.gather(*asking, return_exceptions=True)


def test_what_waits_is_made_together_with_its_kind_and_no_more_than_so_many() -> None:
    work = Doubling()
    calls = [("a", 1), ("b", 2), ("a", 3), ("a", 4), ("a", 5), ("b", 6)]
    assert asyncio.run(answers(work, calls)) == [2, 4, 6, 8, 10, 12]
    assert work.batches == [("a", [1, 3, 4]), ("b", [2, 6]), ("a", [5])]


def test_a_call_that_fails_fails_alone() -> None:
    first, bad, last = asyncio.run(answers(Doubling(), [("a", 1), ("a", 13), ("a", 3)]))
    assert (first, last) == (2, 6)
    assert isinstance(bad, ValueError)


def test_a_call_that_is_given_up_while_it_waits_is_not_made() -> None:
    async def given_up(work: Doubling) -> int:
        batches = Batches[int, int](work, most=3)
        running = asyncio.create_task(batches.ask("a", 1))
        waiting, other = (asyncio.create_task(batches.ask("b", item)) for item in (2, 3))
        await asyncio.sleep(0)
        waiting.cancel()
        work.begin.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return await running + await other

    work = Doubling()
    assert asyncio.run(given_up(work)) == 8
    assert work.batches == [("a", [1]), ("b", [3])]


def test_calls_that_come_later_are_answered_too() -> None:
    async def one_after_the_other(work: Doubling) -> list[int]:
        batches = Batches[int, int](work, most=3)
        return [await batches.ask("a", item) for item in (1, 2)]

    work = Doubling()
    work.begin.set()
    assert asyncio.run(one_after_the_other(work)) == [2, 4]
