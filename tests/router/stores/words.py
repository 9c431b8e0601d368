"""What the tests of stores write and compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from msgspec.structs import replace

from router.call import REWARD, Add, Batch, Credit, Decision, Event, Fit, Outcome
from router.stores import Store

Fresh: TypeAlias = Callable[[], Store]

ROUTE = "credit"


def decision(id: str, arm: str = "a", route: str = ROUTE, **more) -> Decision:
    return replace(Decision(id, route, arm, propensity=0.5, time=1.5, policy_version="7"), **more)


def add(*row: float, layout: str = "counts", arm: str = "a", route: str = ROUTE) -> Add:
    return Add(route, layout, arm, np.array(row, dtype=np.float64))


def credit(
    id: str,
    *rows: Sequence[float],
    arm: str = "a",
    layout: str = "counts",
    name: str = REWARD,
    value: float = 1.0,
    replaces: float | None = None,
    given: tuple[str, float | None] | None = None,
) -> Credit:
    adds = tuple(add(*row, layout=layout, arm=arm) for row in rows)
    return Credit(Outcome(id, name, value, time=2.5), adds, replaces, given)


def fit(version: str, *sums: Sequence[float], route: str = ROUTE, settings: str = "{}") -> Fit:
    return Fit(route, version, settings, np.array(sums or [[1.0, 2.0], [3.0, 4.0]]), time=0.5)


def event(id: str, route: str = ROUTE, **numbers: float) -> Event:
    return Event(id, 3.5, route, "a", "ejected", "It made too many errors.", numbers)


def say(store: Store, *events: Event) -> None:
    store.put("said", {}, events=events)


def decided(*ids: str) -> Batch:
    return Batch([decision(id) for id in ids])


def credited(*credits: Credit) -> Batch:
    return Batch(credits=credits)


def listed(store: Store, route: str = ROUTE) -> dict[tuple[str, str], list[float]]:
    return {key: row.tolist() for key, row in store.sums(route).items()}


def logged(store: Store, route: str = ROUTE, **page: str) -> list[str]:
    return [made.id for made, _ in store.log(route, **page)]


def bits(made: Decision | Outcome) -> tuple[str, bytes]:
    """Tells 0.0 from -0.0, and one NaN from another, which == does not."""
    if isinstance(made, Outcome):
        return repr(made), b""
    vectors = (made.context, made.probabilities, made.proposed)
    return repr(made), b"|".join(np.array(each or ()).tobytes() for each in vectors)
