"""A model that also explains its answers, to those who ask.

An explanation is dozens of runs of the model. All of a process are given by one thread, one after the other, in runs of
at most `max_batch_size` rows: whatever is asked for, other requests lose a core at most, and that only where it idles.
An explanation ends where its deadline does, or when its caller leaves.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter

from protos.errors import Code, DeadlineExceeded, Internal, InvalidArgument, ResourceExhausted
from protos.threads import computes, ends
from runtime.explain import EXPLAIN, Explainer, Question, question_of
from runtime.metrics import ModelMetrics
from runtime.model import Arrays, Parameters, SharedModel, rows_of
from runtime.options import ExplainOptions
from runtime.outcome import code_of
from runtime.settings import ModelSettings

NICENESS = 10  # of the thread; where cores are short, it gets a tenth of what a thread that serves gets

_log = logging.getLogger(__name__)


class _Thread:
    """The one that explains. It starts when first asked, and ends with the last model that was."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._users: set[Explained] = set()

    def of(self, user: Explained) -> ThreadPoolExecutor:
        """The thread, which goes on until the user leaves."""
        self._users.add(user)
        if self._pool is None:
            # Measured on two cores: beside explanations, other requests keep three quarters of their rate with the
            # niceness, half without.
            self._pool = ThreadPoolExecutor(1, "explain", initializer=partial(computes, NICENESS))
        return self._pool

    def leave(self, user: Explained) -> None:
        self._users.discard(user)
        if self._pool is not None and not self._users:
            self._pool.submit(ends)
            self._pool.shutdown(wait=False)
            self._pool = None


_thread = _Thread()


class Explained:
    """Answers requests that ask for explanations. Belongs to one event loop."""

    def __init__(
        self, model: SharedModel, explainer: Explainer | None, settings: ModelSettings, metrics: ModelMetrics
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._explainer = explainer
        self._name = settings.name
        self._options = settings.options.explained or ExplainOptions()
        self._asked = 0
        self._idle: asyncio.Future[None] | None = None

    def question(self, parameters: Parameters) -> Question | None:
        """What a request's parameters ask; None if they say that they don't. Raises InvalidArgument."""
        if self._explainer is None and parameters[EXPLAIN] is not False:
            raise InvalidArgument(
                f"parameter {EXPLAIN!r}: model {self._name!r} gives no explanations; parameters.extra.explain of its "
                f"settings turns them on, for TorchScript and exported programs"
            )
        return question_of(parameters, self._model.outputs, self._options)

    async def run(self, arrays: Arrays, question: Question, deadline: float | None) -> tuple[Arrays, Arrays]:
        """The model's answer and its explanation. Raises ResourceExhausted when too many wait, before the model runs.

        `deadline` is on the loop's clock.
        """
        started = perf_counter()
        code = Code.OK
        try:
            return await self._both(arrays, question, deadline)
        except BaseException as error:
            code = code_of(error, deadline)
            raise
        finally:
            self._metrics.explained(code, perf_counter() - started)

    async def close(self) -> None:
        """Gives the explanations that it was asked for, then lets go of the explainer."""
        if self._asked:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
        self._explainer = None
        _thread.leave(self)

    async def _both(self, arrays: Arrays, question: Question, deadline: float | None) -> tuple[Arrays, Arrays]:
        self._check(arrays)
        if self._asked >= self._options.max_queue:
            raise ResourceExhausted(
                f"{self._asked} explanations of model {self._name!r} are still to be given, as many as may; try again "
                f"later"
            )
        self._asked += 1
        try:
            answer = await self._model.run(arrays, deadline=deadline)
            return answer, await self._explain(arrays, question, deadline)
        finally:
            self._asked -= 1
            if self._idle is not None and not self._asked:
                self._idle.set_result(None)

    async def _explain(self, arrays: Arrays, question: Question, deadline: float | None) -> Arrays:
        loop = asyncio.get_running_loop()
        awaited = True

        def proceed() -> None:
            if not awaited or (deadline is not None and deadline <= loop.time()):
                raise DeadlineExceeded("the deadline passed before the answer was explained")

        explainer = self._explainer
        if explainer is None:
            raise Internal("the model is closed")
        try:
            return await loop.run_in_executor(_thread.of(self), explainer.explain, arrays, question, proceed)
        except Internal as error:
            _log.warning("model %r could not be explained: %s", self._name, error.message)
            raise Internal(f"model {self._name!r} could not be explained: {error.message}") from error
        finally:
            awaited = False

    def _check(self, arrays: Arrays) -> None:
        if (rows := rows_of(arrays)) > self._options.max_rows:
            raise InvalidArgument(f"there are {rows} rows to explain; a request may have {self._options.max_rows}")
