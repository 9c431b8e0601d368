"""A thread of its own for a model whose runs would hold up the event loop, or whose code is at home in one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from protos import threads
from protos.errors import Internal
from runtime.failure import said_by

T = TypeVar("T")

SLOW = 1e-3  # seconds; a model that runs in the event loop and takes longer
STRIKES = 8.0  # times gets a thread after all, less one for every so many quick ones: its warm-up was not like its work
QUICK_RUNS = 64
HELD_UP = 20e-3  # seconds for which a quick run, too, may wait for a processor or the interpreter's lock
NICENESS = 5  # where cores are short, a model gets a third of what the event loop may take, which is seldom much


class Strikes:
    """Counts how often a quick model has taken long, to tell whether it needs a thread of its own for now."""

    def __init__(self) -> None:
        self.out = False  # it does; until none of its strikes is left, as a machine may be slow for a while
        self._count = 0.0

    def hear(self, seconds: float, cpu_seconds: float) -> None:
        """Hears how long a run took, and how much of that it computed."""
        slow = max(cpu_seconds, seconds - HELD_UP) > SLOW
        self._count = min(self._count + 1, STRIKES) if slow else max(0.0, self._count - 1 / QUICK_RUNS)
        if self._count in (0.0, STRIKES):
            self.out = self._count == STRIKES


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
        """Waits for what `work` returns or raises there; what would end the process or a task, as Internal.

        In the thread itself, it is just done. Not after `stop`.
        """
        if threading.current_thread() is self._thread:
            return work()
        outcome: Future[T] = Future()

        def job() -> None:
            try:
                outcome.set_result(work())
            except Exception as error:  # noqa: BLE001 - whoever waits hears of it, and the thread goes on
                outcome.set_exception(error)
            except BaseException as error:  # noqa: BLE001 - in whoever waits it would end more than the model
                told = Internal(said_by(error))
                told.__cause__ = error
                outcome.set_exception(told)

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
