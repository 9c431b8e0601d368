"""A thread of its own for a model whose runs would hold up the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue


class Worker:
    """Does one job after another and hands each result back to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[Callable[[], Callable[[], None]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=f"model {name}", daemon=True).start()

    def do(self, job: Callable[[], Callable[[], None]]) -> None:
        """Runs `job` in the thread, and what it returns in the event loop. Neither may raise."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Ends the thread after the jobs that it has."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            then = job()
            try:
                self._loop.call_soon_threadsafe(then)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more
