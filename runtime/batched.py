"""A model behind its batcher: what runs for one caller at a time is shared by many."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

import numpy as np

from runtime.batcher import Batcher
from runtime.housed import Housed
from runtime.metrics import ModelMetrics
from runtime.model import NOTHING, Arrays, Model, Parameters, rows_of, shares_runs
from runtime.settings import ModelSettings
from runtime.warmup import Times

QUICK = 500e-6  # seconds that others may wait; a batch that takes less is run in the event loop, a thread costs 100 us


def quick_rows(times: Times) -> int:
    """Up to how many rows a run is quick; between two numbers of rows that were timed, as if on a straight line."""
    rows = np.arange(1, max(times) + 1)
    quick = np.interp(rows, list(times), list(times.values())) < QUICK
    return int(quick.cumprod().sum())


class Batched:
    """Shares a model between callers. `times` are those of its warm-up."""

    def __init__(self, model: Model, settings: ModelSettings, metrics: ModelMetrics, times: Times) -> None:
        self.inputs = model.inputs
        self.outputs = model.outputs
        self.memory = model.memory
        self.reads_parameters = model.reads_parameters
        self._model = model
        self.shares_runs = shares_runs(model, settings.max_batch_size)
        self._long = [spec.name for spec in model.inputs if spec.counts_rows]  # as long as a call makes them
        # Rows that differ in other dimensions cannot lie in one array.
        self._free = [spec.name for spec in model.inputs if -1 in spec.shape[1:]] if self.shares_runs else []
        thread = model.thread if isinstance(model, Housed) else None
        # Of sizes other than the number of rows the warm-up has timed but one.
        timed = not any(-1 in spec.shape[1:] for spec in model.inputs)
        self._batcher = Batcher(
            model,
            metrics,
            max_rows=settings.max_batch_size if self.shares_runs else 1,
            max_wait=settings.max_batch_time if self.shares_runs else 0.0,
            max_queue=settings.options.max_queue,
            quick_rows=quick_rows(times) if timed and thread is None else 0,
            thread=thread,
        )

    def admit(self) -> None:
        """Raises ResourceExhausted when no further call may wait."""
        self._batcher.admit()

    def run(
        self, arrays: Arrays, parameters: Parameters = NOTHING, deadline: float | None = None
    ) -> asyncio.Future[Arrays]:
        """Has the model run with whatever else waits. Raises InvalidArgument where inputs differ in their rows."""
        rows = rows_of(arrays) if self.shares_runs else max((len(arrays[name]) for name in self._long), default=1)
        key: Hashable = tuple([arrays[name].shape[1:] for name in self._free]) if self._free else None
        if parameters:
            key = (key, *sorted((name, repr(value)) for name, value in parameters.items()))  # as True equals 1.0
        return self._batcher.submit(arrays, rows, key, deadline, parameters)

    async def close(self) -> None:
        """Answers the calls that it has, then lets go of the model."""
        await self._batcher.close()
        await asyncio.to_thread(self._model.close)  # a user's code may take its time
