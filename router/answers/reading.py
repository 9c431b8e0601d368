"""Reads the newest decisions of a route's log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from router.answers.books import discrepancies
from router.answers.study import Row, Study, study
from router.call import REWARD
from router.config import Route as Settings
from router.learning.versions import Versions
from router.stores import DECISIONS, Store

EVERY = 64
"""Rows between two pauses."""


def give_way() -> None:
    """Lets another thread run: Python lets one run at a time, and requests want to be answered."""
    time.sleep(0)


def read_study(
    store: Store,
    name: str,
    settings: Settings,
    versions: Versions,
    *,
    most: int,
    pause: Callable[[], None] = give_way,
) -> Study:
    """The newest decisions of a route's log, at most `most`, as arrays. Blocks for long, and raises StoreError.

    `pause` is called every `EVERY` rows.
    """
    before, sums = store.version(), store.sums(name)
    taken = sum(float(row[0]) for (layout, _), row in sums.items() if layout == DECISIONS)
    rows: list[Row] = []
    for count, (decision, outcomes) in enumerate(islice(store.newest(name), most + 1)):
        if count % EVERY == 0:
            pause()
        rows.append((decision, outcomes.get(REWARD)))
    whole = len(rows) <= most
    gone = max(0, round(taken) - len(rows)) if whole else 0
    read = study(rows[most - 1 :: -1], settings, lambda version: versions(store, name, version), whole=whole, gone=gone)
    if whole and not gone and store.version() == before:  # else sums and log may be of different moments
        return replace(read, amiss=tuple(discrepancies(rows, sums)))
    return read
