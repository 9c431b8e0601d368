"""Fits routes to what the store knows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from operator import is_

import numpy as np

from bandits import Policy
from router.call import Fit, Vector
from router.config import Route as Settings
from router.learning.fits import Fits
from router.learning.fitting import Sums, age, fit_of, fitted, learnt, policy_layout, standing
from router.learning.gauges import show_means
from router.learning.warm_start import warm_start
from router.metrics import Metrics
from router.route import Route
from router.stores import Store

GROWTH = 1e-3
"""A route is fitted again when what is known has grown by this part: each fit is written down for good."""

STALE_SECONDS = 10.0
"""Or when the last fit is so old, and anything at all has changed."""

_log = logging.getLogger(__name__)


class Fitter:
    """Reads the store, so it is used by the store's thread only."""

    def __init__(self, store: Store, metrics: Metrics, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch."""
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._seen: list[int] = []  # what the last fit of all routes went by
        self._fitted: dict[str, float] = {}  # when each route last was
        self._policies: list[Policy] = []
        self._given: dict[str, tuple[Settings, Vector]] = {}  # warm starts, by route
        self.fits = Fits(clock)

    def fit(self, route: Route) -> Route:
        """The route with all that the store knows about it: itself, where that is nothing new.

        Raises StoreError, ConfigError for a warm start that cannot be, and ValueError for sums that make no sense.
        """
        sums = self._store.sums(route.name)
        show_means(self._metrics, route.name, route.settings, sums)
        return self._fit(route, sums, self._clock())

    def _fit(self, route: Route, sums: Sums, now: float) -> Route:
        known = fitted(route, sums, now, given=self._warm_start(route))
        self._fitted[route.name] = now
        return self._noted(route, known, now)

    def _noted(self, route: Route, known: Route, now: float) -> Route:
        """A fitted route, whose fit is kept for the decisions that will name it."""
        if known is not route:
            self.fits.note(fit_of(known, now))
        return known

    def stand(self, route: Route) -> Route:
        """The route, fitted to what it knows on the terms that it is on: itself, where it is."""
        return self._noted(route, standing(route, route.sums), self._clock())

    def refit(self, routes: Mapping[str, Route]) -> list[Route]:
        """The routes that know noticeably more, or have aged, since the last time. Raises StoreError.

        One that cannot be fitted stays as it is, and the others are fitted all the same.
        """
        thawed = [route for route in routes.values() if not route.frozen]
        policies = [route.policy for route in thawed]
        seen = [self._store.version(), *(age(route, self._clock()) for route in thawed)]
        # A reload publishes routes that were fitted while it went on: they may have missed what came since.
        same = len(policies) == len(self._policies) and all(map(is_, policies, self._policies))
        if same and seen == self._seen:
            return []
        known, now, waiting = [], self._clock(), False
        for route in thawed:
            sums = self._store.sums(route.name)
            show_means(self._metrics, route.name, route.settings, sums)
            change = self._change(route, sums, now)
            if change < GROWTH and now - self._fitted[route.name] < STALE_SECONDS:
                waiting = waiting or change > 0.0
                continue
            try:
                known.append(self._fit(route, sums, now))
            except ValueError:
                _log.exception("route %s cannot be fitted, and goes on with what it knows", route.name)
        if not waiting:
            self._seen, self._policies = seen, policies
        return known

    def recall(self, route: str, version: str) -> Fit | None:
        """What a route knew at a version, if anybody remembers it. Raises StoreError."""
        return self.fits.get(route, version) or self._store.fit(route, version)

    def _change(self, route: Route, sums: Sums, now: float) -> float:
        """By how much of what it is fitted to a route's knowledge has changed; infinite where it never was fitted."""
        if route.name not in self._fitted:
            return math.inf
        known, given = learnt(route, sums, now), self._warm_start(route)
        change = known - route.sums if given is None else known + given - route.sums
        n, total = np.abs(change[:, :2]).sum(axis=0)
        return float(n + total) / max(float(route.sums[:, 0].sum()), 1.0)

    def _warm_start(self, route: Route) -> Vector | None:
        if route.settings.warm_start is None:
            return None
        known = self._given.get(route.name)
        if known is None or known[0] is not route.settings:
            rows = warm_start(self._store, route.name, route.settings, route.policy, policy_layout(route))
            known = self._given[route.name] = route.settings, rows
        return known[1]
