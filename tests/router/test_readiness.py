from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from protos.errors import Internal
from router.edge.readiness import StoreState, WorkersState, readiness, ready_upstreams
from router.route import Routes
from tests.router.fakes import FakeClock, FakeLog, FakeUpstream, make_route

THERE = StoreState(away_seconds=0.0, waiting=0)


class Routed:
    """Two routes of two arms over fakes, which all can infer."""

    def __init__(self) -> None:
        self.routes = Routes()
        self.upstreams = {name: FakeUpstream(name) for name in ("a", "b", "c", "d")}
        for route, arms in (("credit", "ab"), ("fraud", "cd")):
            upstreams = {arm: self.upstreams[arm] for arm in arms}
            make_route(self.routes, FakeLog(), upstreams, clock=FakeClock(), name=route)

    def change(self, name, **fields):
        self.routes.publish(replace(self.routes.current[name], **fields))

    def say(self, *, without="", store=THERE, draining=False, workers=None):
        ready = {upstream for name, upstream in self.upstreams.items() if name not in without}
        return readiness(self.routes.current, ready, store, draining=draining, workers=workers)


def ready_routes(said):
    return {name: route.ready for name, route in said.routes.items()}


def test_all_is_said_as_json():
    said = Routed().say(without="b", workers=WorkersState(up=1, of=2))
    arm = {"ready": True, "allowed": True, "switched_on": True}
    assert msgspec.to_builtins(said) == {
        "ready": True,
        "draining": False,
        "store": {"away_seconds": 0.0, "waiting": 0},
        "routes": {
            "credit": {"ready": True, "arms": {"a": arm, "b": {**arm, "ready": False}}},
            "fraud": {"ready": True, "arms": {"c": arm, "d": arm}},
        },
        "workers": {"up": 1, "of": 2},
    }
    assert "workers" not in msgspec.to_builtins(Routed().say())


def test_one_that_drains_wants_no_new_requests_and_one_that_has_no_routes_yet_neither():
    said = Routed().say(draining=True)
    assert (said.ready, said.status) == (False, 503)
    assert ready_routes(said) == {"credit": True, "fraud": True}
    assert readiness({}, (), THERE, draining=False).status == 503


def test_one_that_is_cut_off_from_the_store_goes_on_and_says_so():
    said = Routed().say(store=StoreState(away_seconds=12.5, waiting=300))
    assert (said.ready, said.status) == (True, 200)
    assert (said.store.away_seconds, said.store.waiting) == (12.5, 300)


def test_a_route_is_ready_by_an_arm_that_may_be_drawn_and_can_infer():
    routed = Routed()
    assert ready_routes(routed.say(without="a")) == {"credit": True, "fraud": True}
    assert ready_routes(routed.say(without="ab")) == {"credit": False, "fraud": True}
    routed.change("credit", allowed=np.array([False, True]))
    assert ready_routes(routed.say(without="b")) == {"credit": False, "fraud": True}


def test_one_dead_route_takes_nobody_out_but_all_of_them_do():
    routed = Routed()
    assert routed.say(without="ab").ready
    assert not routed.say(without="abcd").ready


def test_routes_that_operators_switched_off_are_no_failure():
    routed = Routed()
    nothing = np.zeros(2, dtype=np.bool_)
    for name in routed.routes.current:
        routed.change(name, allowed=nothing, switched_on=nothing)
    said = routed.say()
    assert ready_routes(said) == {"credit": False, "fraud": False}
    assert said.ready


@pytest.mark.anyio
async def test_upstreams_are_asked_once_and_who_does_not_say_yes_in_time_is_not_ready():
    routed = Routed()
    shared, slow, wrong, down = routed.upstreams.values()
    routed.change("fraud", arms=(*routed.routes.current["fraud"].arms, routed.routes.current["credit"].arms[0]))
    asked: list[FakeUpstream] = []

    async def yes():
        asked.append(shared)
        return True

    async def never():
        await asyncio.Event().wait()

    async def fails():
        raise Internal("broken")

    async def no():
        return False

    shared.ready, slow.ready, wrong.ready, down.ready = yes, never, fails, no  # type: ignore[method-assign]
    assert await ready_upstreams(routed.routes.current, seconds=0.01) == {shared}
    assert asked == [shared]
    assert await ready_upstreams({}) == set()
