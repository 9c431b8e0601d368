"""What is forgotten: old decisions, as the configuration says, a few at a time so that commits get their turn.

No decision goes before it has counted. And the sums go that nothing reads any more; what a route decides by is kept for
as long as it does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import islice, takewhile

from router.learning.maturity import mark_of, window_of
from router.learning.unread import forget_unread
from router.route import Route
from router.safety.switches import frozen_with
from router.stores import Malformed, Store

EVERY_SECONDS = 60.0
LIMIT = 2_000
"""Decisions that one step forgets at most."""

_log = logging.getLogger(__name__)


class Retention:
    """Forgets, route by route. Used by the store's thread, but for `is_due`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next: dict[str, float] = {}  # when a route's turn is, by name; now, where not said

    def is_due(self, routes: Mapping[str, Route], now: float) -> bool:
        """Whether `forget` may have something to do."""
        return any(route.settings.retention and self._next.get(name, now) <= now for name, route in routes.items())

    def forget(self, routes: Mapping[str, Route], now: float) -> int:
        """Forgets what is due, as much as fits in one step, and returns how many decisions it was. Raises StoreError.

        The sums stay that anything reads, so nothing that was learnt is forgotten with them.
        """
        gone = 0
        for name, route in routes.items():
            told = route.settings.retention
            if told is None or self._next.get(name, now) > now:
                continue
            before = 0.0 if told.seconds is None else now - told.seconds
            keep = self._in_force(route)
            limit = self._counted(route)
            forgotten = 0
            if limit:
                forgotten = self._store.prune(name, before=before, most=told.decisions, limit=limit, keep=keep)
            if forgotten < LIMIT:
                forget_unread(self._store, route, now, after=told.seconds or 0.0)
                self._next[name] = now + EVERY_SECONDS
            gone += forgotten
        return gone

    def _counted(self, route: Route) -> int:
        """How many of the oldest decisions have counted, as far as one step goes."""
        mark = mark_of(self._store, route.name)
        if mark is None:
            return LIMIT if window_of(route) is None else 0
        oldest = islice(self._store.log(route.name), LIMIT)
        try:
            return sum(1 for _ in takewhile(lambda pair: pair[0].id <= mark.after, oldest))
        except Malformed as error:
            _log.error("route %s: what is old cannot be forgotten: %s", route.name, error)
            return 0

    def _in_force(self, route: Route) -> set[str]:
        """The versions that decisions may name: that of now, and the one that the route is frozen with."""
        return {route.version, frozen_with(self._store, route.name) or route.version}
