"""A thread of its own for a model whose runs would hold up the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue

from protos import threads

SLOW = 1e-3  # seconds; a model that runs in the event loop and takes longer
STRIKES = 8  # times in a row gets a thread after all: its warm-up was not like its work
HELD_UP = 20e-3  # seconds for which a quick run, too, may wait for a processor or the interpreter's lock
NICENESS = 5  # where cores are short, a model gets a third of what the event loop may take, which is seldom much


class Strikes:
    """Counts how often in a row a model has held up the event loop in which it runs."""

    def __init__(self) -> None:
        self._count = 0

    def are_out(self, seconds: float, cpu_seconds: float) -> bool:
        """Hears how long a run took, and how much of that it computed; whether the model needs a thread of its own."""
        slow = max(cpu_seconds, seconds - HELD_UP) > SLOW
        self._count = self._count + 1 if slow else 0
        return self._count == STRIKES


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
        threads.computes(NICENESS)
        while (job := self._jobs.get()) is not None:
            then = job()
            try:
                self._loop.call_soon_threadsafe(then)
            except RuntimeError:
                break  # the loop is closed: nobody waits any more
        threads.ends()
