"""Learning, behind the request path: what happened is committed, again and again, and policies are fitted to it.

One cycle commits the journal, counts decisions whose windows are over, forgets what is old, puts in force what
replicas have agreed on, and fits the policies. All calls to the store are made by one thread. While the store is away,
it is tried again after a while, which is twice as long each time, up to a bound.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from router.call import Vector
from router.learning.fitter import Fitter
from router.learning.gauges import show_lag, show_probabilities
from router.learning.journal import Journal
from router.learning.maturity import Maturity
from router.learning.outage import Outage
from router.learning.retention import Retention
from router.learning.steward import Steward
from router.metrics import Metrics
from router.route import Route, Routes
from router.stores import Malformed, Store, StoreError

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Learner:
    """Learns for all routes of this process, from its `journal` and from other replicas. Lives on one event loop."""

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
        self._stopped = asyncio.Event()
        self._changing = asyncio.Lock()  # of two at a time, the later would undo what the earlier one published
        self._refreshed = -math.inf  # when policies were last fitted, on the loop's clock
        self.outage = Outage()
        self.journal = Journal(
            self.in_store,
            self.outage,
            routes,
            self._fitter.fits,
            metrics,
            clock,
            flush_seconds=flush_seconds,
            writer=writer,
        )

    async def fit(self, route: Route) -> Route:
        """The route with all that the store knows about it. Raises StoreError, and ConfigError for a warm start."""
        try:
            return await self._in_thread(lambda: self._steward.enter(route))
        except ValueError as error:
            raise StoreError(f"route {route.name!r} cannot be fitted to what the store has: {error}") from None

    async def look(self) -> None:
        """Judges the routes, and puts in force what replicas have agreed on about them. Raises StoreError."""
        await self._change(lambda: self._steward.look(self._routes.current))

    async def sums(self, route: str) -> dict[tuple[str, str], Vector]:
        """All that was added up for a route, by (layout, arm). Raises StoreError."""
        return dict(await self._in_thread(lambda: self._store.sums(route)))

    async def in_store(self, work: Callable[[Store], T]) -> T:
        """What `work` makes of the store, in the store's thread. Raises what it raises."""
        return await self._in_thread(lambda: work(self._store))

    async def run(self) -> None:
        """Commits and fits until stopped. Raises what the last commit raised when it failed."""
        while not (self._stopped.is_set() and not self.journal.is_waiting):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.journal.due.wait(), min(self._flush_seconds, self._refresh_seconds))
            self.journal.due.clear()
            began = asyncio.get_running_loop().time()
            try:
                await self._cycle()
            except Exception as error:  # learning goes on, whatever one cycle met
                self._tell_failure(error, began)
                if self._stopped.is_set():
                    raise
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), self.outage.retry_seconds)
                self.outage.lasts()

    def stop(self) -> None:
        """Makes `run` return once everything is committed."""
        self._stopped.set()
        self.journal.due.set()

    def close(self) -> None:
        """Lets go of the store, after `run` has returned."""
        self._thread.submit(self._store.close).result()
        self._thread.shutdown()

    async def _cycle(self) -> None:
        for route in self._routes.current.values():
            if route.guard.tick():
                self._routes.guard_changed(route.name)
            self.journal.drain(route)
        asked = self.journal.is_waiting
        if asked:
            await self.journal.commit()
        if self._maturity.is_due(self._routes.current, self._clock()):
            given = await self._in_thread(lambda: self._maturity.mature(self._routes.current, self._clock()))
            self._metrics.defaults.inc(given)
            if self._maturity.is_due(self._routes.current, self._clock()):
                self.journal.due.set()
        if self._retention.is_due(self._routes.current, self._clock()):
            await self._in_thread(lambda: self._retention.forget(self._routes.current, self._clock()))
        now = asyncio.get_running_loop().time()
        if now - self._refreshed >= self._refresh_seconds:
            self._refreshed, asked = now, True
            await self.look()
            await self._change(lambda: self._fitter.refit(self._routes.current))
            for refresh in self._others:
                await self.in_store(refresh)
            show_probabilities(self._metrics, self._routes.current.values())
        if asked:
            self.outage.ends()
        self._show_lag()

    async def _change(self, work: Callable[[], Iterable[Route]]) -> None:
        """Puts in force what `work` makes of the routes, unless the configuration has changed meanwhile."""
        async with self._changing:
            self._publish(await self._in_thread(work))

    def _publish(self, routes: Iterable[Route]) -> None:
        for known in routes:
            served = self._routes.current.get(known.name)
            if served is not None and served.settings is known.settings:
                self._routes.publish(served.now(known))
                if served.tally is not None:
                    served.tally.watch(known.watches)

    def _tell_failure(self, error: Exception, began: float) -> None:
        if isinstance(error, StoreError) and not isinstance(error, Malformed):  # which is an answer
            self.outage.begins(began)
        if self.outage.is_long:
            self.journal.refuse()
        self._metrics.store_errors.inc()
        n, what = self.journal.decisions_waiting, "are lost" if self._stopped.is_set() else "wait"
        traceback = not isinstance(error, StoreError)
        _log.error("a cycle failed, %d decisions %s: %s", n, what, error, exc_info=traceback)
        self._show_lag()

    def _show_lag(self) -> None:
        waiting, seconds = self.journal.decisions_waiting, self.journal.lag_seconds
        show_lag(self._metrics, waiting=waiting, seconds=seconds, store_away=self.outage.seconds)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
