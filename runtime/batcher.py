"""Natural batching: whatever arrived while the last batch ran, or in this turn of the event loop, is the next batch.

Nobody waits for company that may not come, and under load batches grow by themselves. `max_wait` is there for models
to which a fuller batch is worth a wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from time import perf_counter, thread_time
from typing import NamedTuple

import numpy as np

from protos.errors import CallError, DeadlineExceeded, Internal, ResourceExhausted
from runtime.failure import failure
from runtime.metrics import ModelMetrics
from runtime.model import NOTHING, Arrays, Model, Parameters, misfit
from runtime.worker import Strikes, Thread, Worker

_log = logging.getLogger(__name__)


class Run(NamedTuple):
    """A run of a model that a call had part in: how long it waited for it and how long it took, in seconds."""

    model: str
    queue_seconds: float
    run_seconds: float
    rows: int  # of the whole batch


runs: ContextVar[list[Run] | None] = ContextVar("runs", default=None)  # where a call that is traced has its runs noted


class _Call:
    """The rows of one caller, and where the answer goes."""

    __slots__ = ("arrays", "arrived", "deadline", "future", "parameters", "rows", "runs")

    def __init__(
        self, arrays: Arrays, rows: int, parameters: Parameters, deadline: float | None, future: asyncio.Future[Arrays]
    ) -> None:
        self.arrays = arrays
        self.parameters = parameters
        self.rows = rows
        self.deadline = deadline
        self.future = future
        self.runs = runs.get()
        self.arrived = perf_counter()


class _Group:
    """Calls that may share a batch, in their order."""

    __slots__ = ("calls", "rows")

    def __init__(self, calls: list[_Call], rows: int) -> None:
        self.calls = calls
        self.rows = rows


class Batcher:
    """Runs one model for many callers. It belongs to the event loop in which it is made.

    `max_rows` limits a batch; a call that alone has more runs alone. `max_wait` is how many seconds a call may wait for
    others, `max_queue` how many calls may wait at all. A batch of up to `quick_rows` runs in the event loop, any larger
    one in a thread: in `thread`, where the model is at home in one.
    """

    def __init__(
        self,
        model: Model,
        metrics: ModelMetrics,
        *,
        max_rows: int,
        max_wait: float,
        max_queue: int,
        quick_rows: int,
        thread: Thread | None,
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._max_rows = max_rows
        self._max_wait = max_wait
        self._max_queue = max_queue
        self._loop = asyncio.get_running_loop()
        self._quick_rows = quick_rows
        self._thread = thread
        self._worker: Worker | None = None
        self._groups: dict[Hashable, _Group] = {}  # the next to run is first
        self._queued = 0
        self._busy = False  # a flush is planned, or a batch is in the thread
        self._timer: asyncio.TimerHandle | None = None
        self._strikes = Strikes()
        self._swept = False
        self._idle: asyncio.Future[None] | None = None

    def admit(self) -> None:
        """Raises ResourceExhausted when no further call may wait."""
        if self._queued >= self._max_queue:
            self._make_room()

    def submit(
        self,
        arrays: Arrays,
        rows: int,
        key: Hashable = None,
        deadline: float | None = None,
        parameters: Parameters = NOTHING,
    ) -> asyncio.Future[Arrays]:
        """The outputs for `rows` rows of arrays. Only calls with equal keys share a batch: parameters belong to it.

        A cancelled future is not run, nor is a call whose deadline, on the loop's clock, has passed when its turn
        comes. Raises ResourceExhausted when the queue is full.
        """
        self.admit()
        future: asyncio.Future[Arrays] = self._loop.create_future()
        call = _Call(arrays, rows, parameters, deadline, future)
        self._queued += 1
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = group = _Group([call], rows)
        else:
            group.calls.append(call)
            group.rows += rows
        if not self._busy or (self._timer is not None and group.rows >= self._max_rows):
            self._plan()
        return future

    async def close(self) -> None:
        """Answers what is queued, and ends. Nothing may be submitted from now on."""
        if self._busy:
            self._idle = self._loop.create_future()
            if self._timer is not None:
                self._plan()
            await self._idle
        if self._worker is not None:
            self._worker.stop()

    def _plan(self) -> None:
        """Plans the next flush. Not while a batch is in the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._busy = bool(self._groups)
        if not self._busy:
            if self._idle is not None:
                self._idle.set_result(None)
        elif (wait := self._next()[1]) > 0:
            self._timer = self._loop.call_later(wait, self._flush)
        else:
            # Not now: the calls of this turn of the loop are still to come.
            self._loop.call_soon(self._flush)

    def _next(self) -> tuple[Hashable, float]:
        """The group whose turn is next, and the seconds until then."""
        if not self._max_wait or self._idle is not None:
            return next(iter(self._groups)), 0.0
        now = perf_counter()
        waits = {
            key: 0.0 if group.rows >= self._max_rows else max(0.0, group.calls[0].arrived + self._max_wait - now)
            for key, group in self._groups.items()
        }
        return min(waits.items(), key=lambda each: each[1])

    def _flush(self) -> None:
        self._timer = None
        self._swept = False
        batch = self._take()
        if not batch:
            self._plan()
            return
        started = perf_counter()
        for call in batch:
            self._metrics.queue_seconds.observe(started - call.arrived)
        if not self._strikes.out and self._is_quick(sum(call.rows for call in batch)):
            self._deliver(batch, *self._run(batch))
        else:
            self._worker = self._worker or Worker(self._loop, self._model.name, self._thread)
            self._worker.do(lambda: self._run_there(batch))

    def _take(self) -> list[_Call]:
        """The next batch: the first calls of a group, less those that nobody waits for."""
        batch: list[_Call] = []
        if not self._groups:  # swept empty
            return batch
        key, _ = self._next()
        group = self._groups.pop(key)
        rows = taken = 0
        for call in group.calls:
            if batch and rows + call.rows > self._max_rows:
                # Behind the other groups, so that each has its turn.
                self._groups[key] = _Group(group.calls[taken:], group.rows - rows)
                break
            taken += 1
            if self._is_awaited(call):
                batch.append(call)
                rows += call.rows
        self._queued -= taken
        return batch

    def _is_awaited(self, call: _Call) -> bool:
        if call.future.done():
            return False
        if call.deadline is not None and call.deadline <= self._loop.time():
            call.future.set_exception(DeadlineExceeded("the deadline passed while the call waited for its turn"))
            return False
        return True

    def _run(self, batch: list[_Call]) -> tuple[list[Arrays | CallError], float, float]:
        """An answer to each call, the seconds that it took, and those of them in which it computed."""
        started, began = perf_counter(), thread_time()
        answers = self._answers(batch)
        return answers, perf_counter() - started, thread_time() - began

    def _run_there(self, batch: list[_Call]) -> Callable[[], None]:
        ran = self._run(batch)
        return lambda: self._deliver(batch, *ran)

    def _answers(self, batch: list[_Call]) -> list[Arrays | CallError]:
        try:
            return self._together(batch)
        except BaseException as error:  # noqa: BLE001 - a model may raise anything, and call sys.exit
            if len(batch) == 1:
                return [failure(self._model.name, error)]
        # One call may have spoilt it for the others, so each is run alone.
        return [answer for call in batch for answer in self._answers([call])]

    def _together(self, batch: list[_Call]) -> list[Arrays | CallError]:
        first = batch[0].arrays
        if len(batch) == 1:
            rows, arrays = batch[0].rows, first
        else:
            rows = sum(call.rows for call in batch)
            arrays = {name: np.concatenate([call.arrays[name] for call in batch]) for name in first}
        outputs = self._model.run(arrays, batch[0].parameters)
        if says := misfit(self._model.outputs, outputs, rows if self._max_rows > 1 else None):
            raise Internal(says)
        if len(batch) == 1:
            return [outputs]
        answers: list[Arrays | CallError] = []
        end = 0
        for call in batch:
            start, end = end, end + call.rows
            answers.append({name: array[start:end] for name, array in outputs.items()})
        return answers

    def _is_quick(self, rows: int) -> bool:
        return max(1, rows) <= self._quick_rows

    def _deliver(
        self, batch: list[_Call], answers: list[Arrays | CallError], seconds: float, cpu_seconds: float
    ) -> None:
        rows = sum(call.rows for call in batch)
        self._metrics.ran(rows, seconds)
        if self._is_quick(rows):
            self._judge(seconds, cpu_seconds)
        for call, answer in zip(batch, answers, strict=True):
            if call.runs is not None:
                waited = perf_counter() - seconds - call.arrived
                call.runs.append(Run(self._model.name, waited, seconds, rows))
            if call.future.done():
                continue
            if isinstance(answer, CallError):
                call.future.set_exception(answer)
            else:
                call.future.set_result(answer)
        self._plan()  # not before these have their turn: what a model does not copy is gone with its next run

    def _judge(self, seconds: float, cpu_seconds: float) -> None:
        was_out = self._strikes.out
        self._strikes.hear(seconds, cpu_seconds)
        if self._strikes.out is not was_out:
            then = "needs no thread any more" if was_out else "gets a thread"
            _log.info("model %r runs for %.1f ms and %s", self._model.name, seconds * 1e3, then)

    def _make_room(self) -> None:
        """Drops calls that nobody waits for, at most once a batch; raises ResourceExhausted when that is not enough."""
        if not self._swept:
            self._swept = True
            for key, group in list(self._groups.items()):
                group.calls = [call for call in group.calls if self._is_awaited(call)]
                group.rows = sum(call.rows for call in group.calls)
                if not group.calls:
                    del self._groups[key]
            self._queued = sum(len(group.calls) for group in self._groups.values())
        if self._queued >= self._max_queue:
            raise ResourceExhausted(
                f"{self._queued} calls already wait for model {self._model.name!r}, as many as may; try again later"
            )
