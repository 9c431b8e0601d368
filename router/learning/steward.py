"""What replicas have agreed on about routes, put in force: who may answer, what a canary gets, who learns no more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import is_

import numpy as np

from bandits import Mask
from router.call import Batch
from router.config import Route as Settings
from router.learning.fitter import Fitter
from router.learning.fitting import fit_of, same_layout
from router.route import Route
from router.safety import canary as canaries
from router.safety import switches
from router.safety.review import Standing, Subject, agreed, review, watches_of
from router.safety.schedule import scheduled
from router.stores import Store

_log = logging.getLogger(__name__)


class Steward:
    """Looks after routes, again and again. Reads and writes the store, so it is used by the store's thread only."""

    def __init__(self, store: Store, fitter: Fitter, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch."""
        self._store = store
        self._fitter = fitter
        self._clock = clock
        self._seen = -1  # version of the store at the last look
        self._judged: list[Settings] = []  # by which the routes ran then

    def enter(self, route: Route) -> Route:
        """A route that comes into service, as what was agreed on has it. Writes nothing. Raises StoreError.

        Raises ConfigError for a warm start that cannot be, and ValueError for sums that make no sense.
        """
        decided = switches.decode(self._store.documents(switches.kind(route.name)))
        subject = subject_of(route)
        begun, _ = agreed(self._store, subject)
        state = None if subject.canary is None else begun or canaries.begin(self._clock())
        # A canary that is yet to begin is counted for from the next look on, which agrees with others on when that was.
        watches = watches_of(subject, decided, begun)
        entered = self._fitter.fit(self._stands(route, Standing(decided, state, watches)))
        return self._held(entered, decided)

    def look(self, routes: Mapping[str, Route]) -> list[Route]:
        """Judges routes by what is known now, and puts in force what follows; returns those that have changed.

        Raises StoreError. What others have written and cannot be read is logged.
        """
        changed = []
        version = self._store.version()
        settings = [route.settings for route in routes.values()]
        # A route that has come into service since may have missed what was agreed on meanwhile.
        same = len(settings) == len(self._judged) and all(map(is_, settings, self._judged))
        moved = version != self._seen or not same
        for route in routes.values():
            # Steps of canaries and schedules come by time alone.
            if not (moved or route.settings.canary or route.settings.schedule or route.settings.guardrails):
                continue
            try:
                sums = self._store.sums(route.name) if route.tally is not None else {}
                standing = review(self._store, subject_of(route), sums, version=route.version, now=self._clock())
                stands = self._held(self._fitter.stand(self._stands(route, standing)), standing.switches)
            except ValueError:
                _log.exception("what was agreed on about route %s cannot be read, and it goes on as it is", route.name)
                continue
            if stands.frozen and not route.frozen:  # no decision may ever name it, and it outlives this process
                self._store.commit(Batch(fits=[fit_of(stands, self._clock())]))
            if stands is not route:
                changed.append(stands)
        self._seen, self._judged = version, settings
        return changed

    def _stands(self, route: Route, standing: Standing) -> Route:
        """The route on these terms: what it knows is as before, and not yet fitted to them."""
        names = [arm.name for arm in route.arms]
        on = switches.switched_on(standing.switches, names) & answering(route)
        canary, share = route.settings.canary, None
        if canary is not None and standing.canary is not None:
            share = canaries.share(canary, standing.canary)
        in_force = scheduled(route.settings, self._clock())
        if (share, standing.watches, in_force) == (route.share, route.watches, route.in_force) and np.array_equal(
            on, route.switched_on
        ):
            return route
        policy = route.policy if in_force == route.in_force else in_force.build_policy()
        return replace(route, switched_on=on, share=share, watches=standing.watches, in_force=in_force, policy=policy)

    def _held(self, route: Route, decided: Mapping[str, switches.Switch]) -> Route:
        """The route as it was frozen, or thawed."""
        version = switches.frozen(decided)
        if version is None:
            return replace(route, frozen=False) if route.frozen else route
        fit = self._fitter.recall(route.name, version) if version != route.version else None
        # What a policy of another layout knew cannot be gone back to. What it gives may have changed: a canary moves.
        if fit is not None and same_layout(version, route.version) and not np.array_equal(fit.sums, route.sums):
            route = self._fitter.stand(replace(route, sums=np.array(fit.sums)))
        return route if route.frozen else replace(route, frozen=True)


def answering(route: Route) -> Mask:
    """The arms that may answer a caller: shadows do not."""
    return np.array([arm.name not in route.settings.shadows for arm in route.arms])


def subject_of(route: Route) -> Subject:
    """What of a route is judged."""
    settings = route.settings
    served = ""
    if settings.canary is not None:
        champion = settings.canary.champion or settings.the_champion
        served = repr((settings.arms[settings.canary.arm], settings.arms[champion]))
    return Subject(
        route.name,
        tuple(settings.arms),
        settings.the_champion,
        settings.reward,
        settings.guardrails,
        settings.canary,
        served,
    )
