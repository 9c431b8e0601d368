"""Learning, behind the request path: decisions and rewards are committed in groups, then the policies are fitted.

One cycle takes all that came while the last one ran: a single transaction records the decisions, claims the rewards and
adds what they teach. Only then are rewards acknowledged. All calls to the store are made by one thread.

While the store is away, decisions and counts wait, up to a bound, and feedback is refused: its client sends it again.
The store is tried again after a while, which is twice as long each time, up to a bound.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import numpy as np
from prometheus_client import Counter

from protos.errors import ResourceExhausted
from router.call import Add, Batch, Decision, Feedback, Vector
from router.errors import NotRecorded, UnknownDecision
from router.ids import time_of
from router.learning.counting import Counted, Verdict, count
from router.learning.fitter import Fitter
from router.learning.maturity import Maturity, overdue
from router.learning.retention import Retention
from router.learning.steward import Steward
from router.learning.waiting import Queue, Rows, settle
from router.metrics import Metrics
from router.route import Route, Routes
from router.stores import Store, StoreError

T = TypeVar("T")

MOST_WAITING = 200_000
MOST_AT_ONCE = 5_000  # in a commit: a longer one would keep other processes from theirs
GRACE_SECONDS = 2.0
HOLD_SECONDS = 1.0  # that clients wait for a store that is away; then they are told at once
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Learner:
    """The decision log and the rewards of all routes of this process. Lives on one event loop."""

    def __init__(
        self,
        store: Store,
        routes: Routes,
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        flush_seconds: float,
        refresh_seconds: float,
        writer: str = "",
        refreshed: Sequence[Callable[[Store], object]] = (),
    ) -> None:
        """`clock` gives seconds since the epoch; `writer` is this process's name in the store, like no other's.

        `refreshed` are called with the store, in its thread, whenever it is read for what others have learnt.
        """
        self._store = store
        self._routes = routes
        self._metrics = metrics
        self._clock = clock
        self._flush_seconds = flush_seconds
        self._refresh_seconds = refresh_seconds
        self._fitter = Fitter(store, metrics, clock)
        self._steward = Steward(store, self._fitter, clock)
        self._maturity = Maturity(store)
        self._retention = Retention(store)
        self._others = refreshed
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._wake = asyncio.Event()
        self._stopped = asyncio.Event()
        self._writer = writer
        self._queue = Queue()  # written by the loop
        self._rows = Rows()
        self._refreshed = -math.inf  # when policies were last fitted, on the loop's clock
        self._away_since: float | None = None  # by the loop's clock; None: the store answers
        self._retry_seconds = FIRST_RETRY_SECONDS

    @property
    def store_away_seconds(self) -> float:
        """For how long the store has not answered; 0 while it does."""
        return 0.0 if self._away_since is None else asyncio.get_running_loop().time() - self._away_since

    @property
    def decisions_waiting(self) -> int:
        """How many are not committed yet."""
        return len(self._queue.decisions)

    def record(self, decision: Decision) -> None:
        """Queues a decision for the next commit."""
        waiting = self._queue.decisions
        if len(waiting) >= MOST_WAITING:
            waiting.popleft()
            self._metrics.dropped.inc()
        waiting.append(decision)

    def keep(self, adds: Iterable[Add]) -> None:
        """Queues rows that hang on no outcome. They are committed once, however often a commit fails."""
        self._rows.add(adds)

    async def committed(self, decision: Decision) -> None:
        """Records a decision and returns when it is durable. Raises NotRecorded, and then it never will be."""
        self._check_store()
        done = asyncio.get_running_loop().create_future()
        self._queue.strict.append((decision, done))
        self._wake.set()
        await done

    async def feedback(self, feedbacks: Sequence[Feedback]) -> list[Verdict]:
        """Counts what clients report and returns what became of each, in order, once it is durable.

        Raises NotRecorded. A decision that another replica made moments ago may not be committed yet, so one that is
        unknown but young is looked for again.
        """
        verdicts = await self._claim(feedbacks)
        while young := [
            index
            for index, verdict in enumerate(verdicts)
            if isinstance(verdict, UnknownDecision) and self._is_young(feedbacks[index].decision)
        ]:
            await asyncio.sleep(self._flush_seconds)
            for index, verdict in zip(young, await self._claim([feedbacks[index] for index in young]), strict=True):
                verdicts[index] = verdict
        return verdicts

    async def fit(self, route: Route) -> Route:
        """The route with all that the store knows about it. Raises StoreError, and ConfigError for a warm start."""
        try:
            return await self._in_thread(lambda: self._steward.enter(route))
        except ValueError as error:
            raise StoreError(f"route {route.name!r} cannot be fitted to what the store has: {error}") from None

    async def look(self) -> None:
        """Judges the routes, and puts in force what replicas have agreed on about them. Raises StoreError."""
        self._publish(await self._in_thread(lambda: self._steward.look(self._routes.current)))

    async def sums(self, route: str) -> dict[tuple[str, str], Vector]:
        """All that was added up for a route, by (layout, arm). Raises StoreError."""
        return dict(await self._in_thread(lambda: self._store.sums(route)))

    async def in_store(self, work: Callable[[Store], T]) -> T:
        """What `work` makes of the store, in the store's thread. Raises what it raises."""
        return await self._in_thread(lambda: work(self._store))

    async def run(self) -> None:
        """Commits and fits until stopped. Raises what the last commit raised when it failed."""
        while not (self._stopped.is_set() and not self._waiting()):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(self._flush_seconds, self._refresh_seconds))
            self._wake.clear()
            began = asyncio.get_running_loop().time()
            try:
                await self._cycle()
            except Exception as error:  # learning goes on, whatever one cycle met
                self._tell_failure(error, began)
                if self._stopped.is_set():
                    raise
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), self._retry_seconds)
                self._retry_seconds = min(2.0 * self._retry_seconds, LAST_RETRY_SECONDS)

    def _waiting(self) -> bool:
        return bool(self._queue or self._rows)

    def stop(self) -> None:
        """Makes `run` return once everything is committed."""
        self._stopped.set()
        self._wake.set()

    def close(self) -> None:
        """Lets go of the store, after `run` has returned."""
        self._thread.submit(self._store.close).result()
        self._thread.shutdown()

    async def _claim(self, feedbacks: Sequence[Feedback]) -> list[Verdict]:
        if len(self._queue.feedback) >= MOST_WAITING:
            raise ResourceExhausted("too many rewards are waiting for the store; send it again later")
        self._check_store()
        done: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self._queue.feedback.append((feedbacks, done))
        self._wake.set()
        return await done

    def _check_store(self) -> None:
        """Raises NotRecorded when there is no hope of a commit: a client that is kept waiting hangs up instead."""
        if self.store_away_seconds > HOLD_SECONDS:
            raise NotRecorded

    def _is_young(self, decision: str) -> bool:
        """Whether a decision may exist that is not in the store yet."""
        waiting = self._queue.decisions
        if waiting and decision >= waiting[0].id:  # ids sort by time
            return True
        born = time_of(decision)
        return born is not None and abs(self._clock() - born) < GRACE_SECONDS

    async def _cycle(self) -> None:
        for route in self._routes.current.values():
            if route.guard.tick():
                self._routes.guard_changed(route.name)
            self.keep(counted(route))
        asked = self._waiting()
        if asked:
            await self._commit()
        if self._maturity.is_due(self._routes.current, self._clock()):
            given = await self._in_thread(lambda: self._maturity.mature(self._routes.current, self._clock()))
            self._metrics.defaults.inc(given)
            if self._maturity.is_due(self._routes.current, self._clock()):
                self._wake.set()
        if self._retention.is_due(self._routes.current, self._clock()):
            await self._in_thread(lambda: self._retention.forget(self._routes.current, self._clock()))
        now = asyncio.get_running_loop().time()
        if now - self._refreshed >= self._refresh_seconds:
            self._refreshed, asked = now, True
            await self.look()
            self._publish(await self._in_thread(lambda: self._fitter.refit(self._routes.current)))
            for refresh in self._others:
                await self.in_store(refresh)
            self._show_probabilities()
        if asked:
            self._away_since, self._retry_seconds = None, FIRST_RETRY_SECONDS
        self._show_lag()

    def _publish(self, routes: Iterable[Route]) -> None:
        """Puts in force what was worked out, unless the configuration has changed meanwhile."""
        for known in routes:
            served = self._routes.current.get(known.name)
            if served is not None and served.settings is known.settings:
                self._routes.publish(served.now(known))
                if served.tally is not None:
                    served.tally.watch(known.watches)

    async def _commit(self) -> None:
        queue = self._queue.take(MOST_AT_ONCE)
        if self._queue:
            self._wake.set()
        self._rows.send()
        decisions = [*queue.decisions, *(decision for decision, _ in queue.strict)]
        feedbacks = [feedback for batch, _ in queue.feedback for feedback in batch]
        try:
            verdicts = iter(await self._in_thread(lambda: self._write(queue, decisions, feedbacks)))
        except BaseException:
            self._put_back(queue)
            queue.refuse()
            raise
        self._rows.sent = []
        for _, committed in queue.strict:
            settle(committed, None)
        for batch, claimed in queue.feedback:
            mine = [next(verdicts) for _ in batch]
            settle(claimed, mine)
            rewarded = (verdict for verdict in mine if isinstance(verdict, Counted) and verdict.rewarded)
            _count(self._metrics.rewards, (verdict.decision for verdict in rewarded))
        _count(self._metrics.decisions, decisions)

    def _write(self, queue: Queue, decisions: Sequence[Decision], feedbacks: Sequence[Feedback]) -> list[Verdict]:
        routes = self._routes.current
        fits = self._fitter.fits.named_by(decisions)
        defaults = overdue(routes, decisions, self._clock())
        batch = Batch(
            decisions,
            defaults,
            adds=self._rows.sent,
            writer=self._writer,
            number=self._rows.number,
            fits=fits,
        )
        verdicts = count(self._store, routes, batch, feedbacks)
        self._fitter.fits.written(fits)
        return verdicts

    def _put_back(self, queue: Queue) -> None:
        """Puts what could not be committed before what has come since, without those who were refused."""
        queue.decisions.extend(self._queue.decisions)
        while len(queue.decisions) > MOST_WAITING:
            queue.decisions.popleft()
            self._metrics.dropped.inc()
        self._queue.decisions = queue.decisions

    def _tell_failure(self, error: Exception, began: float) -> None:
        if self._away_since is None and isinstance(error, StoreError):
            self._away_since = began
        if self.store_away_seconds > HOLD_SECONDS:
            self._queue.refuse()
        self._metrics.store_errors.inc()
        n, what = len(self._queue.decisions), "are lost" if self._stopped.is_set() else "wait"
        traceback = not isinstance(error, StoreError)
        _log.error("a cycle failed, %d decisions %s: %s", n, what, error, exc_info=traceback)
        self._show_lag()

    def _show_lag(self) -> None:
        waiting = self._queue.decisions
        self._metrics.waiting.set(len(waiting))
        self._metrics.learner_lag.set(max(0.0, self._clock() - waiting[0].time) if waiting else 0.0)
        self._metrics.store_away.set(self.store_away_seconds)

    def _show_probabilities(self) -> None:
        self._metrics.probability.clear()  # of arms that are gone since a reload
        for route in self._routes.current.values():
            drawn = (route.allowed & route.drawable).any()
            chances = route.probabilities() if drawn else np.zeros(len(route.arms))
            if chances is not None:
                for arm, p in zip(route.arms, chances, strict=True):
                    self._metrics.probability.labels(route.name, arm.name).set(p)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def counted(route: Route) -> list[Add]:
    """What a route has counted on the request path since the last time."""
    adds = [] if route.tally is None else route.tally.drain()
    return adds if route.shadows is None else [*adds, *route.shadows.drain()]


def _count(counter: Counter, decisions: Iterable[Decision]) -> None:
    for (route, arm), n in collections.Counter((decision.route, decision.arm) for decision in decisions).items():
        counter.labels(route, arm).inc(n)
