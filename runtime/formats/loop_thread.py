"""An event loop in a thread of its own, and what goes back and forth between two loops."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any, TypeVar

A = TypeVar("A")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class LoopThread:
    """An event loop that runs in a thread of its own, as nice to others as the one that makes it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """The future of what `work` returns. Where that would end the process, by sys.exit, it raises RuntimeError."""
        return asyncio.run_coroutine_threadsafe(_staying(work), self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for what `work` returns. Not in an event loop."""
        return self.submit(work).result()

    def soon(self, work: Callable[[], None]) -> None:
        """Has `work`, which may not raise, done there before what is submitted from now on begins."""
        self._loop.call_soon_threadsafe(work)

    def stop(self) -> None:
        """Ends the thread when the loop has its turn."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        while True:
            try:
                self._loop.run_forever()
                break
            except (SystemExit, KeyboardInterrupt):  # of a task that a user's code began, and that is over
                _log.warning("in %s a task called for the end of the process; it serves on", self._name)
        self._loop.close()


async def _staying(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:  # at which the loop would end, and whoever waits would wait on
        says = f"it would end the process, by {type(error).__name__}: {error}"
        raise RuntimeError(says).with_traceback(error.__traceback__) from None


async def through(
    make: Callable[[AsyncGenerator[A, None]], AsyncGenerator[T, None]],
    items: AsyncGenerator[A, None],
    there: Callable[[Coroutine[Any, Any, None]], asyncio.Future[None]],
) -> AsyncGenerator[T, None]:
    """What a generator that runs in another loop makes of the items of this one; `there` has work done in that loop.

    It makes the next when the last was taken, and is cancelled when nobody takes more.
    """
    here = asyncio.get_running_loop()
    made: asyncio.Queue[T | None] = asyncio.Queue()

    async def given() -> A | None:
        return await anext(items, None)

    async def taken(each: T) -> None:
        made.put_nowait(each)
        await made.join()

    async def come() -> AsyncGenerator[A, None]:
        while (item := await across(given(), here)) is not None:
            yield item

    async def make_all() -> None:
        async with aclosing(make(come())) as makes:
            async for each in makes:
                await across(taken(each), here)

    work = there(make_all())
    work.add_done_callback(lambda _: made.put_nowait(None))
    try:
        while (each := await made.get()) is not None:
            yield each
            made.task_done()
        await work
    finally:
        work.cancel()


async def until(end: asyncio.Event, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Items as they come, until it is time to end."""
    ended = asyncio.ensure_future(end.wait())
    try:
        while True:
            item: asyncio.Future[T | None] = asyncio.ensure_future(anext(items, None))
            both: list[asyncio.Future[Any]] = [item, ended]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if not item.done() or (each := item.result()) is None:
                    return
            finally:
                item.cancel()
            yield each
    finally:
        ended.cancel()


async def across(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """What `work` returns, done in another loop; cancelled there if it is here."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
