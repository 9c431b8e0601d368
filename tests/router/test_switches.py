from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import httpx
import numpy as np
import pytest

from protos.errors import InvalidArgument, NotFound
from protos.grpc import Rpc, Stream
from protos.messages import SwitchArmRequest, SwitchArmResponse
from protos.rest import rest_app
from router.call import Batch
from router.edge.rest import switch_routes
from router.edge.switch_service import SwitchService, switch_methods
from router.errors import NotRecorded, StoreAway, UnknownRoute
from router.route import Routes
from router.safety.switches import ROUTE, Switch, decode, encode, frozen, kind, switch, switched_on, watched_since
from router.stores import Store, StoreError
from router.stores.memory import MemoryStore
from tests.router.fakes import NOW, FakeClock, FakeLog, FakeUpstream, make_route

T = TypeVar("T")

pytestmark = pytest.mark.anyio

ARMS = ["a", "b", "c"]


class Operator:
    """Who switches the arms of one route, in a store that may be `away`."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.routes = Routes()
        make_route(self.routes, FakeLog(), {arm: FakeUpstream() for arm in ARMS}, clock=self.clock)
        self.store = MemoryStore()
        self.away = self.looks_in_vain = False
        self.looked: list[list[bool]] = []  # the switches, each time that they were put in force
        self.client = ""
        self.service = SwitchService(
            self.routes, self.in_store, self.clock, look=self.look, follow_seconds=0.3, client=lambda: self.client
        )

    async def in_store(self, work: Callable[[Store], T]) -> T:
        if self.away:
            raise StoreError("the disk is full")
        return work(self.store)

    async def look(self) -> None:
        if self.looks_in_vain:
            raise StoreError("the disk is full")
        self.looked.append(self.mask())

    async def says(self, arm: str = "b", *, on: bool, why: str = "it is slow", **more: str) -> SwitchArmResponse:
        return await self.service.switch(SwitchArmRequest(route="credit", arm=arm, on=on, why=why, **more))

    def mask(self) -> list[bool]:
        return [bool(on) for on in switched_on(decode(self.store.documents(kind("credit"))), ARMS)]


async def test_an_arm_that_is_switched_off_is_out_for_all_replicas_until_it_is_switched_on():
    operator = Operator()
    assert operator.mask() == [True, True, True]
    assert list((await operator.says(on=False, who="Ada")).off) == ["b"]
    assert operator.mask() == [True, False, True]
    operator.clock.advance(5.0)
    assert list((await operator.says(on=True)).off) == []
    assert operator.mask() == [True, True, True]
    off, on = operator.store.events("credit")
    assert (off.kind, off.arm, off.why, off.time) == ("switched_off", "b", "Ada: it is slow", NOW)
    assert (on.kind, on.why) == ("switched_on", "an operator: it is slow")


async def test_a_switch_is_in_force_before_it_is_acknowledged():
    operator = Operator()
    assert (await operator.says(on=False)).follow_seconds == 0.3
    assert operator.looked == [[True, False, True]]
    operator.looks_in_vain = True
    with pytest.raises(StoreAway, match="it is written down, and holds from when the store answers again"):
        await operator.says(on=True)
    assert operator.mask() == [True, True, True]


@pytest.mark.parametrize(
    ("client", "said", "why"),
    [("", "", "an operator: x"), ("", "Ada", "Ada: x"), ("risk", "", "risk: x"), ("risk", "me", "risk (me): x")],
)
async def test_the_log_names_the_client_and_what_it_says_of_itself_only_beside_it(client: str, said: str, why: str):
    operator = Operator()
    operator.client = client
    await operator.says(on=False, who=said, why="x")
    assert [event.why for event in operator.store.events("credit")] == [why]


async def test_an_ejected_arm_comes_back_when_an_operator_says_so_and_is_watched_anew():
    operator = Operator()
    ejected = Switch("ejected", "errors.most", "above the limit", NOW)
    operator.store.put(kind("credit"), {"c": encode(ejected)})
    assert operator.mask() == [True, True, False]
    operator.clock.advance(60.0)
    await operator.says("c", on=True)
    assert operator.mask() == [True, True, True]
    assert watched_since(decode(operator.store.documents(kind("credit")))) == {"c": NOW + 60.0}


async def test_learning_is_frozen_with_the_policy_as_it_is_and_let_go_again():
    operator = Operator()
    response = await operator.says("", on=False)
    assert response.frozen
    assert list(response.off) == []
    switches = decode(operator.store.documents(kind("credit")))
    assert frozen(switches) == operator.routes.current["credit"].version == "nothing"
    assert operator.mask() == [True, True, True]
    assert watched_since(switches) == {}
    assert not (await operator.says("", on=True)).frozen
    assert frozen(decode(operator.store.documents(kind("credit")))) is None
    assert [(event.arm, event.kind) for event in operator.store.events("credit")] == [
        ("", "frozen"),
        ("", "switched_on"),
    ]


async def test_the_last_word_is_the_operators():
    """Also against a guardrail that writes at the same time: its compare-and-set then fails."""
    store = MemoryStore()
    switch(store, "credit", "a", Switch("off", "Ada", "enough", NOW))
    assert not store.put(kind("credit"), {"a": encode(Switch("ejected", "errors", "", NOW))}, expected=0)
    switches, said = switch(store, "credit", "a", Switch("on", "Ada", "again", NOW + 1))
    assert switches["a"].state == "on"
    assert said in store.events("credit")


async def test_a_switch_and_its_event_are_written_together():
    class OneCall(MemoryStore):
        """Answers once, and then is away."""

        def commit(self, batch: Batch) -> list[bool]:
            raise StoreError("the disk is full")

    store = OneCall()
    switch(store, "credit", "a", Switch("off", "Ada", "enough", NOW))
    assert [each.kind for each in store.events("credit")] == ["switched_off"]


@pytest.mark.parametrize(
    ("told", "error", "sentence"),
    [
        ({"route": "nobody"}, UnknownRoute, "unknown route 'nobody'"),
        ({"arm": "z"}, NotFound, "no arm 'z'; there are: a, b, c"),
        ({"on": None}, InvalidArgument, "on: say true or false"),
        ({"why": "  "}, InvalidArgument, "why: say why"),
        ({"why": "x" * 1001}, InvalidArgument, "why: at most 1000 characters, got 1001"),
        ({"who": "x" * 1001}, InvalidArgument, "who: at most 1000 characters"),
    ],
)
async def test_a_request_that_is_not_understood_switches_nothing(told: dict, error: type[Exception], sentence: str):
    operator = Operator()
    request = {"route": "credit", "arm": "b", "on": False, "why": "it is slow", **told}
    with pytest.raises(error, match=sentence):
        await operator.service.switch(SwitchArmRequest(**request))
    assert operator.mask() == [True, True, True]
    assert not operator.store.events("credit")


async def test_a_store_that_does_not_answer_is_no_yes():
    operator = Operator()
    operator.away = True
    with pytest.raises(NotRecorded):
        await operator.says(on=False)


async def test_the_method_reads_and_writes_messages():
    operator = Operator()
    ((path, method),) = switch_methods(operator.service).items()
    assert not isinstance(method, Stream)
    assert path == "/croupier.v1.Croupier/SwitchArm"
    asked = SwitchArmRequest(route="credit", arm="b", on=False, why="it is slow")
    answered = SwitchArmResponse.FromString(await method(asked.SerializeToString(), Rpc([])))
    assert list(answered.off) == ["b"]


async def test_over_rest_the_route_stands_in_the_path():
    operator = Operator()
    app = rest_app(switch_routes(operator.service), max_body=10_000)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        off = await client.post("/v1/routes/credit/switch", json={"arm": "b", "on": False, "why": "it is slow"})
        unclear = await client.post("/v1/routes/credit/switch", json={"arm": "c", "why": "it is slow"})
    assert (off.status_code, off.json()) == (200, {"off": ["b"], "frozen": False, "follow_seconds": 0.3})
    assert (unclear.status_code, unclear.json()["error"]) == (422, "on: say true or false")
    assert operator.mask() == [True, False, True]


def test_switches_of_arms_that_are_gone_switch_nothing():
    switches = {"gone": Switch("off", "", "", NOW), ROUTE: Switch("frozen", "", "", NOW, "v")}
    np.testing.assert_array_equal(switched_on(switches, ARMS), [True, True, True])
