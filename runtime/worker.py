"""A thread of its own for a model whose runs would hold up the event loop."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

NICENESS = 5  # where cores are short, a model gets a third of what the event loop may take, which is seldom much


def step_back(niceness: int) -> None:
    """Lets other threads go first, the event loop's above all, from now on in this thread."""
    # Else what takes microseconds, a refusal or a quick model, waits for the ends of a slow model's time slices. Only
    # on Linux are priorities a thread's own.
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)


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
        step_back(NICENESS)
        while (job := self._jobs.get()) is not None:
            then = job()
            try:
                self._loop.call_soon_threadsafe(then)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more
