"""A thread of its own for a model whose runs would hold up the event loop, or whose code is at home in one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from protos import threads

T = TypeVar("T")

SLOW = 1e-3  # seconds; a model that runs in the event loop and takes longer
STRIKES = 8  # times gets a thread after all, less one for every so many quick ones: its warm-up was not like its work
QUICK_RUNS = 64
HELD_UP = 20e-3  # seconds for which a quick run, too, may wait for a processor or the interpreter's lock
NICENESS = 5  # where cores are short, a model gets a third of what the event loop may take, which is seldom much


class Strikes:
    """Counts how often a model has held up the event loop in which it runs."""

    def __init__(self) -> None:
        self._count = 0.0

    def are_out(self, seconds: float, cpu_seconds: float) -> bool:
        """Hears how long a run took, and how much of that it computed; whether the model needs a thread of its own."""
        slow = max(cpu_seconds, seconds - HELD_UP) > SLOW
        self._count = self._count + 1 if slow else max(0.0, self._count - 1 / QUICK_RUNS)
        return self._count >= STRIKES


class Thread:
    """Does one job after another in a thread of its own, before which the event loop goes first."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], None]) -> None:
        """Has `job`, which may not raise, done there."""
        self._jobs.put(job)

    def call(self, work: Callable[[], T]) -> T:
        """Waits for what `work` returns or raises there."""
        if threading.current_thread() is self._thread:
            return work()
        outcome: Future[T] = Future()

        def job() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:  # noqa: BLE001 - whoever waits hears of it, and the thread goes on
                outcome.set_exception(error)

        self._jobs.put(job)
        return outcome.result()

    def stop(self) -> None:
        """Ends it after the jobs that it has."""
        self._jobs.put(None)

    def _work(self) -> None:
        threads.computes(NICENESS)
        while (job := self._jobs.get()) is not None:
            job()
        threads.ends()


class Worker:
    """Does jobs in a thread and hands each result back to the event loop. It ends no thread that it was given."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, thread: Thread | None = None) -> None:
        self._loop = loop
        self._thread = thread or Thread(f"model {name}")
        self._own = thread is None

    def do(self, job: Callable[[], Callable[[], None]]) -> None:
        """Runs `job` in the thread, and what it returns in the event loop. Neither may raise."""
        self._thread.do(lambda: self._hand_back(job()))

    def stop(self) -> None:
        """No more jobs will come."""
        if self._own:
            self._thread.stop()

    def _hand_back(self, then: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(then)
        except RuntimeError:
            self.stop()  # the loop is closed: nobody waits any more
