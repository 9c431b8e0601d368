"""Many requests of one stream at a time, answered in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def pipelined(requests: AsyncIterator[T], answer: Callable[[T], Awaitable[R]], *, most: int) -> AsyncGenerator[R]:
    """What `answer` returns for each request, in order; `most` at a time, and no more are read meanwhile.

    Raises what reading or an answer raises, after the answers before it. Whoever stops listening cancels the rest.
    """
    slots = asyncio.Semaphore(most)
    answers: asyncio.Queue[asyncio.Future[R] | None] = asyncio.Queue()

    async def read() -> None:
        try:
            async for request in requests:
                await slots.acquire()
                answers.put_nowait(asyncio.ensure_future(answer(request)))
        finally:
            answers.put_nowait(None)

    reading = asyncio.create_task(read())
    try:
        while (ready := await answers.get()) is not None:
            yield await ready
            slots.release()
        await reading
    finally:
        reading.cancel()
        while not answers.empty():
            left = answers.get_nowait()
            if left is not None:
                left.cancel()
