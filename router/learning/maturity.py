"""The reward that silence means: given, once, to decisions whose window has ended without one.

The log is walked in the order of ids, which is that of time, up to where windows are still open. How far it was walked
is a document that all replicas share, so that none begins anew; two that walk at once claim each default once. What is
committed behind that mark, by a replica that the store was away from, gets its default with the same commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice, takewhile

from router.call import REWARD, Batch, Credit, Decision
from router.learning.counting import Crediter
from router.route import Route
from router.stores import Store

DOCUMENTS = "matured"
"""Kind of the documents that say, by route, up to which decision its log was walked."""

MOST = 2000
"""Decisions that are looked at in one go, so that commits get their turn."""

GRACE_SECONDS = 10.0
"""After the end of a window: rewards that came in time are counted by then, and replicas' clocks need not agree."""


def overdue(routes: Mapping[str, Route], decisions: Iterable[Decision], now: float) -> list[Credit]:
    """The defaults of decisions that are written down only now, when their windows have ended."""
    windows = {name: window for name, route in routes.items() if (window := window_of(route)) is not None}
    if not windows:
        return []
    late = [each for each in decisions if each.route in windows and each.time + windows[each.route] < now]
    return _defaults(routes, late, now)


def window_of(route: Route) -> float | None:
    """The seconds after which a decision of the route gets its default; None where it gets none."""
    reward = route.settings.reward
    return None if reward.default is None else reward.window_seconds


class Maturity:
    """Walks the log of each route that has a default. Used by the store's thread, but for `is_due`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._marks: dict[str, tuple[str, int]] = {}  # by route: the last decision that was walked over, and the stamp
        self._due: dict[tuple[str, float], float] = {}  # by route and wait: when the next one is; now, where not said

    def is_due(self, routes: Mapping[str, Route], now: float) -> bool:
        """Whether `mature` may have something to do."""
        return any(self._is_due(route, now) for route in routes.values())

    def mature(self, routes: Mapping[str, Route], now: float) -> int:
        """Gives defaults that are due, as many as fit in one go, and returns how many. Raises StoreError."""
        return sum(self._walk(routes, route, now) for route in routes.values() if self._is_due(route, now))

    def _is_due(self, route: Route, now: float) -> bool:
        window = window_of(route)
        return window is not None and self._due.get((route.name, window + GRACE_SECONDS), now) <= now

    def _walk(self, routes: Mapping[str, Route], route: Route, now: float) -> int:
        wait = (window_of(route) or 0.0) + GRACE_SECONDS
        mark, stamp = self._mark(route.name)
        seen = list(islice(self._store.log(route.name, after=mark), MOST))
        ripe = list(takewhile(lambda pair: pair[0].time + wait <= now, seen))
        silent = [decision for decision, outcomes in ripe if REWARD not in outcomes]
        given = sum(self._store.commit(Batch(credits=_defaults(routes, silent, now)))) if silent else 0
        if ripe:
            self._store.put(DOCUMENTS, {route.name: ripe[-1][0].id.encode()}, expected=stamp)
        if len(ripe) < len(seen):
            self._due[route.name, wait] = seen[len(ripe)][0].time + wait
        elif len(seen) < MOST:
            self._due[route.name, wait] = now + wait  # what comes now is due then
        return given

    def _mark(self, route: str) -> tuple[str, int]:
        """How far the log was walked, by any replica, and the stamp of the document that says so."""
        mark, stamp = self._marks.get(route, ("", 0))
        written = self._store.documents(DOCUMENTS, after=stamp).get(route)
        if written is not None:
            mark, stamp = self._marks[route] = written.body.decode(), written.stamp
        return mark, stamp


def _defaults(routes: Mapping[str, Route], decisions: Iterable[Decision], now: float) -> list[Credit]:
    crediter = Crediter(routes)
    given = [crediter(decision.route).default(decision, now) for decision in decisions]
    return [credit for credit in given if credit is not None]
