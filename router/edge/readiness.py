"""Whether this process should be sent requests: what a probe of Kubernetes asks, and what an operator reads.

The question behind it is whether another replica would do better. One that drains would not, nor one that can answer
for none of its routes. Whatever concerns all replicas alike takes nobody out, as that would only turn one failure into
an outage: a store that is away (this one goes on with what it knows, and says so), an upstream of one route that is
down, arms that operators switched off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import msgspec

from protos.errors import CallError
from router.route import Route
from router.upstreams import Upstream

ASK_SECONDS = 0.5  # a probe of Kubernetes waits for 1 s unless told otherwise


class ArmState(msgspec.Struct, frozen=True):
    """An arm of a route."""

    ready: bool  # its model can infer now
    allowed: bool  # it may be drawn now
    switched_on: bool  # by operators


class RouteState(msgspec.Struct, frozen=True):
    """A route: ready when an arm that may be drawn can infer."""

    ready: bool
    arms: dict[str, ArmState]

    @property
    def is_off(self) -> bool:
        """Operators want nobody to be answered here."""
        return not any(arm.switched_on for arm in self.arms.values())


class StoreState(msgspec.Struct, frozen=True):
    """What this process knows of the store."""

    away_seconds: float  # for which it has not answered; 0 while it does
    waiting: int  # decisions that are not yet committed


class WorkersState(msgspec.Struct, frozen=True):
    """The processes that share the ports; ready as a whole is each for itself."""

    up: int
    of: int


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer."""

    ready: bool
    draining: bool
    store: StoreState
    routes: dict[str, RouteState]
    workers: WorkersState | None = None  # where there are several

    @property
    def status(self) -> int:
        """Of HTTP."""
        return 200 if self.ready else 503


def readiness(
    routes: Mapping[str, Route],
    ready: Collection[Upstream],
    store: StoreState,
    *,
    draining: bool,
    workers: WorkersState | None = None,
) -> Readiness:
    """What is to be said of these routes, when of their upstreams those in `ready` can infer."""
    states = {name: _state(route, ready) for name, route in routes.items()}
    is_ready = not draining and any(state.ready or state.is_off for state in states.values())
    return Readiness(is_ready, draining, store, states, workers)


async def ready_upstreams(routes: Mapping[str, Route], *, seconds: float = ASK_SECONDS) -> set[Upstream]:
    """The upstreams of these routes that say in time that they can infer. Each is asked once."""
    asked = {
        upstream: asyncio.ensure_future(upstream.ready())
        for upstream in {arm.upstream for route in routes.values() for arm in route.arms}
    }
    if asked:
        await asyncio.wait(asked.values(), timeout=seconds)
    return {upstream for upstream, said in asked.items() if _said_yes(said)}


def _said_yes(said: asyncio.Future[bool]) -> bool:
    if not said.done():
        said.cancel()
        return False
    try:
        return said.result()
    except CallError:
        return False


def _state(route: Route, ready: Collection[Upstream]) -> RouteState:
    arms = {
        arm.name: ArmState(arm.upstream in ready, bool(allowed), bool(switched_on))
        for arm, allowed, switched_on in zip(route.arms, route.allowed, route.switched_on, strict=True)
    }
    return RouteState(any(arm.ready and arm.allowed for arm in arms.values()), arms)
