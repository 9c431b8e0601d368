"""Counts decisions whose window is over, each once: by the reward that was held for them, else by what silence means.

Until then nothing is counted, whatever was reported, so that each decision counts at the same age. The log is walked in
the order of ids, which is that of time, up to where windows are still open. How far it was walked is a document that
all replicas share, so that none begins anew; two that walk at once claim each decision once. What is committed behind
that mark, by a replica that the store was away from, counts with the same commit.

A route that has no default any more is walked for as long as rewards may be held for it: they count when they are due,
and silence then means nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from router.call import HELD, REWARD, Batch, Credit, Decision, Outcome
from router.ids import first_id
from router.learning.counting import Crediter, is_finite
from router.learning.credit import GRACE_SECONDS
from router.route import Route
from router.stores import Malformed, Store

DOCUMENTS = "matured"
"""Kind of the documents that say, by route, how far its log was walked."""

MOST = 2000
"""Decisions that are looked at in one go, so that commits get their turn."""

PAUSE_SECONDS = 1.0
"""Between two goes, so that what is due in a second is one commit."""

LOOK_SECONDS = 60.0
"""A route without a default looks so often whether it had one: another replica may still serve it so."""

Row: TypeAlias = tuple[Decision, Mapping[str, Outcome]]

_log = logging.getLogger(__name__)


def overdue(routes: Mapping[str, Route], decisions: Iterable[Decision], now: float) -> list[Credit]:
    """The defaults of decisions that are written down only now, when their windows have ended."""
    windows = {name: window for name, route in routes.items() if (window := window_of(route)) is not None}
    if not windows:
        return []
    late = [each for each in decisions if each.route in windows and each.time + windows[each.route] < now]
    return _matured(routes, [(decision, None) for decision in late], now)


def window_of(route: Route) -> float | None:
    """The seconds after which a decision of the route counts; None where rewards count as they come."""
    reward = route.settings.reward
    return None if reward.default is None else reward.window_seconds


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the log of a route was walked."""

    after: str  # the last decision that was
    wait: float  # the age in seconds at which decisions are
    stamp: int = 0  # of the document; 0: it is not there yet

    def document(self) -> bytes:
        """What `mark_of` reads; never empty, for that would delete it."""
        return f"{self.after} {self.wait!r}".encode()


def mark_of(store: Store, route: str) -> Mark | None:
    """How far the log of a route was walked, by any replica; None: it never had a default. Raises StoreError."""
    document = store.documents(DOCUMENTS).get(route)
    if document is None:
        return None
    after, _, wait = document.body.decode().partition(" ")
    return Mark(after, float(wait or GRACE_SECONDS), document.stamp)


class Maturity:
    """Walks the logs of the routes that have a default, or had one. Used by the store's thread, but for `is_due`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._due: dict[str, tuple[float | None, float]] = {}  # by route: its window then, and when the next is due

    def is_due(self, routes: Mapping[str, Route], now: float) -> bool:
        """Whether `mature` may have something to do."""
        return any(self._is_due(route, now) for route in routes.values())

    def mature(self, routes: Mapping[str, Route], now: float) -> int:
        """Counts what is due, as much as fits in one go, and returns how many defaults it gave. Raises StoreError."""
        return sum(self._walk(routes, route, now) for route in routes.values() if self._is_due(route, now))

    def _is_due(self, route: Route, now: float) -> bool:
        window, due = self._due.get(route.name, (None, now))
        return due <= now or window != window_of(route)

    def _walk(self, routes: Mapping[str, Route], route: Route, now: float) -> int:
        window, mark = window_of(route), mark_of(self._store, route.name)
        if window is not None:
            wait = window + GRACE_SECONDS
        elif mark is not None:
            wait = mark.wait
        else:
            self._due[route.name] = window, now + LOOK_SECONDS
            return 0
        if self._due.get(route.name, (None, now))[0] != window or mark is None:
            mark = self._begin(route.name, mark, wait, now)
        ripe, due = self._ripe(route.name, mark.after, wait, now)
        credits = _matured(routes, [(one, known.get(HELD)) for one, known in ripe if REWARD not in known], now)
        claims = self._store.commit(Batch(credits=credits)) if credits else []
        if all(claims):  # else another walked here too, or what was held is corrected: look again
            if ripe:
                self._put(route.name, Mark(ripe[-1][0].id, wait, mark.stamp))
            self._due[route.name] = window, due
        return sum(claimed for credit, claimed in zip(credits, claims, strict=True) if credit.given == (HELD, None))

    def _begin(self, route: str, mark: Mark | None, wait: float, now: float) -> Mark:
        """Where to walk from: not beyond those whose windows are open, for a shorter window may have been walked by.

        Written down at once: so a configuration without a default knows that rewards are held.
        """
        begun = Mark("", wait) if mark is None else Mark(min(mark.after, first_id(now - wait)), wait, mark.stamp)
        if begun != mark:
            self._put(route, begun)
            begun = mark_of(self._store, route) or begun
        return begun

    def _ripe(self, route: str, after: str, wait: float, now: float) -> tuple[list[Row], float]:
        """Decisions that are old enough, as many as fit in one go, and when the next one is due.

        Where one cannot be read, those before it, and it is tried again before long: other routes go on meanwhile.
        """
        ripe: list[Row] = []
        try:
            for decision, outcomes in islice(self._store.log(route, after=after), MOST):
                if decision.time + wait > now:
                    return ripe, max(decision.time + wait, now + PAUSE_SECONDS)
                ripe.append((decision, outcomes))
        except Malformed as error:
            _log.error("route %s: what is due cannot be counted: %s", route, error)
            return ripe, now + LOOK_SECONDS
        return ripe, now if len(ripe) == MOST else now + wait  # what comes now is due then

    def _put(self, route: str, mark: Mark) -> None:
        """Unless another replica has walked further."""
        self._store.put(DOCUMENTS, {route: mark.document()}, expected=mark.stamp)


def _matured(routes: Mapping[str, Route], rows: Iterable[tuple[Decision, Outcome | None]], now: float) -> list[Credit]:
    """What counts for decisions, each with the reward that was held for it. One that cannot count is left out."""
    crediter = Crediter(routes)
    credits = []
    for decision, held in rows:
        try:
            credit = crediter(decision.route).matured(decision, held, now)
        except Exception:  # noqa: BLE001 - a policy may raise anything
            _log.exception("route %s: decision %s cannot be counted", decision.route, decision.id)
            continue
        if credit is None:
            continue
        if is_finite([[credit]]):
            credits.append(credit)
        else:
            _log.error("route %s: decision %s would add what is not finite", decision.route, decision.id)
    return credits
