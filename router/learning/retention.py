"""What is forgotten: old decisions, as the configuration says, a few at a time so that commits get their turn."""

from __future__ import annotations

from collections.abc import Mapping

from router.route import Route
from router.stores import Store

EVERY_SECONDS = 60.0
LIMIT = 2_000
"""Decisions that one step forgets at most."""


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

        The sums stay, so nothing that was learnt is forgotten with them.
        """
        gone = 0
        for name, route in routes.items():
            told = route.settings.retention
            if told is None or self._next.get(name, now) > now:
                continue
            before = 0.0 if told.seconds is None else now - told.seconds
            forgotten = self._store.prune(name, before=before, most=told.decisions, limit=LIMIT)
            if forgotten < LIMIT:
                self._next[name] = now + EVERY_SECONDS
            gone += forgotten
        return gone
