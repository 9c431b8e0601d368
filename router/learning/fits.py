"""What the policies of this process knew at the versions that decisions name.

A fit goes into the store with the first decisions that name it. One that stays in force goes there again now and then
with those that come later: while nobody called, whoever prunes the log may have taken it for forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from router.call import Decision, Fit

MOST = 64
"""Of a route that are remembered, the newest. A call may take a while, and name an older one by then."""

AGAIN_SECONDS = 1.0
"""After which a fit that was written is written again, with the next decisions that name it."""


class Fits:
    """The newest fits of all routes, and when they were written down. `clock` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, dict[str, tuple[Fit, float]]] = {}  # by route and version; the newest is the last

    def note(self, fit: Fit) -> None:
        """Remembers a fit that comes into force."""
        known = self._known.setdefault(fit.route, {})
        known.pop(fit.version, None)
        known[fit.version] = fit, -math.inf
        if len(known) > MOST:
            del known[next(iter(known))]

    def get(self, route: str, version: str) -> Fit | None:
        """What a route knew at a version, where this process remembers it."""
        fit, _ = self._known.get(route, {}).get(version, (None, 0.0))
        return fit

    def named_by(self, decisions: Iterable[Decision]) -> list[Fit]:
        """The fits that decisions name, of those that the store may lack."""
        named, due = {(each.route, each.policy_version) for each in decisions}, self._clock() - AGAIN_SECONDS
        known = [self._known.get(route, {}).get(version) for route, version in named]
        return [each[0] for each in known if each is not None and each[1] <= due]

    def written(self, fits: Sequence[Fit]) -> None:
        """Hears that fits are in the store."""
        for fit in fits:
            known = self._known.get(fit.route, {})
            if fit.version in known:
                known[fit.version] = fit, self._clock()
