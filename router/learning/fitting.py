"""What a route knows: the sums that its policy reads, what follows from them, and the version that decisions name.

With a half-life, each era's sums lie in a layout of their own, "LAYOUT@ERA" (see `bandits.HalfLife`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import TypeAlias

import numpy as np

from bandits import HalfLife
from router.call import Fit, Vector
from router.learning.settings_json import settings_json
from router.route import Route, drawn_ever
from router.safety.canary import mixed

Sums: TypeAlias = Mapping[tuple[str, str], Vector]
"""All that was added up for a route, by (layout, arm)."""

AGEING = 64
"""Steps in a half-life: what was learnt is aged once in each, so that replicas come to one version."""


def policy_layout(route: Route) -> str:
    """Layout of what the policy learns: policies of one layout take over from each other.

    Another range of rewards starts clean, and so does another half-life, or a context that means something else.
    """
    settings = route.settings
    worths = settings.worths
    layout = f"policy:{route.policy.layout}:{worths.low!r}:{worths.high!r}"
    if costs := {name: arm.cost for name, arm in settings.arms.items() if arm.cost}:
        layout += f":{_digest(repr(sorted(costs.items())).encode(), 4)}"
    if route.policy.features:
        layout += f":{settings.schema.digest}"
    if settings.half_life_seconds is not None:
        layout += f":{settings.half_life_seconds!r}"
    return layout


def learnt(route: Route, sums: Sums, now: float) -> Vector:
    """What a policy is fitted to at `now`: shape [K, width].

    A reward from beyond the era after this one, of a replica whose clock is wrong, waits until its time has come.
    """
    layout, half_life = policy_layout(route), route.settings.half_life
    nothing = np.zeros((len(route.arms), route.policy.width))
    if half_life is None:
        return _rows(route, layout, sums)
    now = age(route, now) * half_life.seconds / AGEING
    named = {name for name, _ in sums if name.startswith(layout + "@")}
    eras = {int(name.rpartition("@")[2]): _rows(route, name, sums) for name in named}
    present = half_life.era(now)
    return half_life.sums({present: nothing} | {era: rows for era, rows in eras.items() if era <= present + 1}, now)


def age(route: Route, now: float) -> int:
    """Changes when what was learnt has aged, by time alone."""
    half_life = route.settings.half_life
    return 0 if half_life is None else math.floor(now * AGEING / half_life.seconds)


def weighed(half_life: HalfLife | None, layout: str, row: Vector, time: float) -> tuple[str, Vector]:
    """The layout that a row of that time is added to, and the row as it is added."""
    if half_life is None:
        return layout, row
    return f"{layout}@{half_life.era(time)}", row * half_life.weight(time)


def fitted(route: Route, sums: Sums, now: float, *, given: Vector | None = None) -> Route:
    """The route with all that `sums` know about it: itself, where that is nothing new.

    `given` is what it knows beside them, shape [K, width]. Raises ValueError for sums that no rewards add up to.
    """
    known = learnt(route, sums, now)
    return standing(route, known if given is None else known + given)


def standing(route: Route, known: Vector) -> Route:
    """The route that knows `known`, shape [K, width], on the terms that it is on: itself, where it does."""
    what = f"{settings_json(route.in_force, route.share)}\n{route.policy!r}".encode() + known.tobytes()
    version = f"{layout_mark(route)}{arms_mark(route)}-{_digest(what, 6)}"
    if version == route.version:
        return route
    chosen, canary = route.policy.fit(known), -1
    if route.share is not None and route.settings.canary is not None:
        canary = list(route.settings.arms).index(route.settings.canary.arm)
        chosen = mixed(chosen, canary, route.share)
    drawable = drawn_ever(route.policy, len(route.arms), canary, route.share)
    return replace(route, fitted=chosen, version=version, sums=known, drawable=drawable)


def layout_mark(route: Route) -> str:
    """How the versions of a route begin while it learns into one layout."""
    return _digest(policy_layout(route).encode(), 4)


def arms_mark(route: Route) -> str:
    """How they go on, while it has the same arms in the same order."""
    return _digest("\n".join(route.settings.arms).encode(), 2)


def same_layout(one: str, other: str) -> bool:
    """Whether what two versions of a route knew lies in one layout, for the same arms."""
    return one.partition("-")[0] == other.partition("-")[0]


def fit_of(route: Route, time: float) -> Fit:
    """What is written down of a fitted route, so that its decisions can be taken again."""
    return Fit(route.name, route.version, settings_json(route.in_force, route.share), route.sums, time)


def _rows(route: Route, layout: str, sums: Sums) -> Vector:
    nothing = np.zeros(route.policy.width)
    return np.array([sums.get((layout, arm.name), nothing) for arm in route.arms])


def _digest(what: bytes, size: int) -> str:
    return blake2b(what, digest_size=size).hexdigest()
