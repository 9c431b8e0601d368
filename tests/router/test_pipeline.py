from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from router.edge.pipeline import pipelined
from tests.router.fakes import SOON, Held

pytestmark = pytest.mark.anyio


async def stream(items: Iterable[int]) -> AsyncIterator[int]:
    for item in items:
        yield item


async def test_answers_come_in_the_order_of_the_requests():
    turns = [asyncio.Event() for _ in range(5)]

    async def answer(k: int) -> int:
        if k + 1 < len(turns):
            await turns[k + 1].wait()  # the one after it is through first
        turns[k].set()
        return 10 * k

    assert [each async for each in pipelined(stream(range(5)), answer, most=5)] == [0, 10, 20, 30, 40]


async def test_no_more_are_read_than_may_be_under_way():
    read: list[int] = []
    held = Held()

    async def requests() -> AsyncIterator[int]:
        for k in range(10):
            read.append(k)
            yield k

    async def answer(k: int) -> int:
        await held.wait()
        return k

    answers = pipelined(requests(), answer, most=3)
    first = asyncio.ensure_future(anext(answers))
    await asyncio.wait_for(held.arrived.wait(), SOON)
    await asyncio.sleep(0)
    assert read == [0, 1, 2, 3], "the fourth is read, and waits for a place"
    held.release()
    assert await first == 0
    assert [each async for each in answers] == [*range(1, 10)]


async def test_what_reading_raises_comes_after_the_answers_before_it():
    async def requests() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise EOFError("cut off")

    async def answer(k: int) -> int:
        return k

    answers = pipelined(requests(), answer, most=2)
    assert [await anext(answers), await anext(answers)] == [1, 2]
    with pytest.raises(EOFError, match="cut off"):
        await anext(answers)


async def test_who_stops_listening_cancels_what_is_under_way():
    arrived, cancelled = asyncio.Event(), asyncio.Event()

    async def answer(k: int) -> int:
        if k == 0:
            return k
        arrived.set()
        try:
            return await asyncio.Future()
        finally:
            cancelled.set()

    answers = pipelined(stream(range(5)), answer, most=2)
    assert await anext(answers) == 0
    await asyncio.wait_for(arrived.wait(), SOON)
    await answers.aclose()
    await asyncio.wait_for(cancelled.wait(), SOON)
