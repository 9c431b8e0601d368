"""Reads the newest decisions of a route's log, and what the versions meant that they were taken with."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

from router.answers.study import Row, Study, study
from router.call import REWARD
from router.config import Route as Settings
from router.learning.settings_json import settings_of
from router.stores import DECISIONS, Store

FIRST_SECONDS = 1.0
"""How far back the log is read at first, where it is longer than what is asked for."""

SLACK = 4
"""So many times the rows that are asked for are read at most, to find out which are the newest."""

FINEST = 1e-3
"""Of how far back it is: a start is not looked for more closely."""

EVERY = 64
"""Rows between two pauses."""


class Versions:
    """What the versions of policies meant: the settings of the route, by route and version. For one thread."""

    def __init__(self) -> None:
        self._settings: dict[tuple[str, str], Settings] = {}
        self._texts: dict[str, Settings] = {}

    def __call__(self, store: Store, route: str, version: str) -> Settings | None:
        """The settings at a version; None when nobody knows them. Raises StoreError."""
        known = self._settings.get((route, version))
        if known is None:
            fit = store.fit(route, version)
            if fit is None:
                return None
            try:
                known = self._texts.get(fit.settings) or settings_of(fit.settings)
            except ValueError:  # of another Croupier
                return None
            self._texts[fit.settings] = self._settings[route, version] = known
        return known


def read_study(
    store: Store,
    name: str,
    settings: Settings,
    versions: Versions,
    *,
    most: int,
    now: float,
    pause: Callable[[], None] = lambda: time.sleep(0),
) -> Study:
    """The newest decisions of a route's log, at most `most`, as arrays. Blocks for long, and raises StoreError.

    `pause` is called every `EVERY` rows: Python lets one thread run at a time, and requests want to run too.
    """
    sums = store.sums(name)
    total = sum(float(row[0]) for (layout, _), row in sums.items() if layout == DECISIONS)
    rows, whole = newest(store, name, most=most, now=now, total=total, pause=pause)
    return study(rows, settings, lambda version: versions(store, name, version), whole=whole)


def newest(
    store: Store, route: str, *, most: int, now: float, total: float, pause: Callable[[], None] = lambda: None
) -> tuple[deque[Row], bool]:
    """The newest decisions of a log, at most `most`, in order, and whether these are all.

    A log is read forwards, and ids begin with the time: so a start is looked for from which it is not far to the end.
    `total` is how many decisions there ever were. Where so many came at once that no start is near enough, those are
    returned that follow the nearest one. `pause` is called now and then.
    """
    near, span, far = 0.0, FIRST_SECONDS, math.inf  # from `near` too few were read, from `far` too many
    if total <= SLACK * most:
        span = now
    while True:
        after = f"{int((now - span) * 1000):012x}" if span < now else ""
        rows: deque[Row] = deque(maxlen=most)
        read = 0
        for decision, outcomes in islice(store.log(route, after=after), SLACK * most + 1):
            if read % EVERY == 0:
                pause()
            rows.append((decision, outcomes.get(REWARD)))
            read += 1
        if read > SLACK * most:
            far = span
        elif read >= most or not after:
            return rows, not after and read <= most
        else:
            near = span
        if far < math.inf and far - near <= FINEST * far:
            return rows, False
        span = SLACK * span if far == math.inf else (near + far) / 2
