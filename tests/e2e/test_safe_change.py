"""What keeps a route safe while it changes, asked of real processes by real clients."""

from __future__ import annotations

import hashlib
import shutil
import socket
from collections import Counter
from contextlib import closing
from typing import Any

import grpc
import pytest
from torch import nn

from protos.errors import Code
from router import Client
from tests import plain_http
from tests.e2e.calls import ROWS, refusal
from tests.e2e.conftest import ARMS
from tests.e2e.models import FACTORS, write_model
from tests.process import Router, until, write_config

SOON = 30.0  # seconds: many times what a replica may take to read what others have decided
BAD_ROWS = -ROWS
LOCAL = {name: {"model": name} for name in ("double", "fragile")}
PATIENT = {"failures": 10_000}  # a guard that leaves nobody out


class Fragile(nn.Module):
    """y = 2 x, for those that are not below 0."""

    def forward(self, x):
        if bool((x < 0.0).any()):
            raise RuntimeError("below 0")
        return x * 2.0


@pytest.fixture(scope="module")
def fragile_models(models, tmp_path_factory):
    root = tmp_path_factory.mktemp("fragile")
    for name in FACTORS:
        shutil.copytree(models / name, root / name)
    write_model(root / "fragile", Fragile())
    return root


@pytest.fixture(scope="module")
def router(fragile_models, tmp_path_factory):
    """One server with a route for each of these tests."""
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        closed = f"127.0.0.1:{nobody.getsockname()[1]}"
    routes = {
        "switched": {"arms": ARMS},
        "canary": {
            "arms": LOCAL,
            "guard": PATIENT,
            "guardrails": {"failing": {"watch": "errors", "action": "roll_back", "most": 0.05}},
            "canary": {"arm": "fragile", "steps": [{"share": 0.5, "calls": 1_000_000}], "objective": "guardrails"},
        },
        "promoted": {
            "arms": LOCAL,
            "guardrails": {"failing": {"watch": "errors", "action": "roll_back", "most": 0.4}},
            "canary": {
                "arm": "fragile",
                "steps": [{"share": 0.4, "calls": 5}, {"share": 0.6, "calls": 5}],
                "objective": "guardrails",
            },
        },
        "ejected": {
            "arms": LOCAL,
            "guard": PATIENT,
            "guardrails": {"failing": {"watch": "errors", "action": "eject", "most": 0.05}},
        },
        "shadowed": {"arms": ARMS, "shadows": {"triple": {"percent": 100}}},
        "failover": {
            "arms": {"double": {"model": "double"}, "dead": {"model": "double", "target": closed}},
            "guard": PATIENT,
            "failover": {"attempts": 1},
        },
        "sticky": {"arms": ARMS, "sticky": True},
    }
    config = write_config(
        tmp_path_factory.mktemp("safe"), routes, models=str(fragile_models), refresh_seconds=0.05, flush_seconds=0.02
    )
    with Router(config) as router:
        assert router.address
        yield router
        assert router.stop() == 0
        assert "Traceback (most recent call last)" not in router.complained, router.complained


@pytest.fixture
def client(router):
    with Client(router.address) as client:
        yield client


def arms_of(client, route, calls=100):
    """How many of so many calls each arm answers."""
    return Counter(client.infer(route, {"x": ROWS}).arm for _ in range(calls))


def allowed(client, route):
    return [arm.name for arm in client.describe(route).arms if arm.allowed]


def kinds(client, route):
    return [event.kind for event in client.events(route).events]


# -------------------------------------------------------------------------------------------------------- switches


def test_an_arm_that_is_switched_off_gets_no_request_and_the_log_says_who_did_it(router, client):
    assert set(arms_of(client, "switched")) == {"double", "triple"}
    assert client.switch("switched", "triple", on=False, why="prices are wrong", who="Ada").off == ["triple"]
    assert arms_of(client, "switched") == {"double": 100}

    url = f"http://{router.address}/v1/routes/switched/switch"
    told = plain_http.post(url, json={"arm": "triple", "on": True, "why": "they are right again"})
    assert told.json() == {"off": [], "frozen": False, "follow_seconds": pytest.approx(0.07)}
    assert set(arms_of(client, "switched")) == {"double", "triple"}

    off, on = client.events("switched").events
    assert (off.kind, off.arm, off.why) == ("switched_off", "triple", "Ada: prices are wrong")
    assert (on.kind, on.arm, on.why) == ("switched_on", "triple", "an operator: they are right again")
    assert off.time < on.time
    listed = plain_http.get(f"http://{router.admin}/v1/routes/switched/events").json()["events"]
    assert [each["kind"] for each in listed] == ["switched_off", "switched_on"]


@pytest.mark.parametrize(
    ("told", "status", "sentence"),
    [
        ({"arm": "quadruple", "on": False, "why": "x"}, 404, "no arm 'quadruple'; there are: double, triple"),
        ({"arm": "triple", "why": "x"}, 422, "on: say true or false"),
        ({"arm": "triple", "on": False}, 422, "why: say why"),
    ],
)
def test_a_switch_that_says_too_little_is_refused(router, told, status, sentence):
    refused = plain_http.post(f"http://{router.address}/v1/routes/sticky/switch", json=told)
    assert refused.status_code == status
    assert sentence in refused.json()["error"]


def test_switches_survive_a_restart_and_a_reload_says_what_it_changed(models, tmp_path):
    def write(**route):
        return write_config(tmp_path, {"first": {"arms": ARMS, **route}}, models=str(models))

    config = write()
    with Router(config, tmp_path / "one") as router, Client(router.address) as client:
        client.switch("first", "double", on=False, why="a test")
        assert client.switch("first", "", on=False, why="a test").off == ["double"]
        router.kill()
    with Router(config, tmp_path / "two") as router, Client(router.address) as client:
        assert arms_of(client, "first", 20) == {"triple": 20}, "from its first request on"
        assert client.report("first").frozen

        url = f"http://{router.admin}/reload"
        assert plain_http.post(url).json() == {"changed": []}
        write(floor=0.1, policy={"kind": "thompson"}, reward={"high": 2})
        assert plain_http.post(url).json() == {
            "changed": [
                'routes.first.policy.kind: "split" -> "thompson"',
                "routes.first.floor: 0.0 -> 0.1",
                "routes.first.reward.high: 1.0 -> 2.0",
            ]
        }
        assert "routes.first.floor: 0.0 -> 0.1" in router.complained, "and in the log"
        assert arms_of(client, "first", 20) == {"triple": 20}, "what is switched off stays so"
        client.switch("first", "double", on=True, why="a test")
        client.switch("first", "", on=True, why="a test")
        until(lambda: allowed(client, "first") == ["double", "triple"], SOON)
        assert kinds(client, "first") == ["switched_off", "frozen", "reloaded", "switched_on", "switched_on"]
        assert router.stop() == 0


# ------------------------------------------------------------------------------------------------- what goes wrong


def answered(client, route):
    """The arm that answers a bad request; where it cannot, the status that the caller is told."""
    try:
        return client.infer(route, {"x": BAD_ROWS}).arm
    except grpc.RpcError as error:
        return refusal(error).code.name


def test_a_canary_that_fails_its_calls_is_rolled_back_by_itself(client):
    until(lambda: "canary_began" in kinds(client, "canary"), SOON)

    def rolled_back():
        assert {answered(client, "canary") for _ in range(20)} <= {"double", "INTERNAL"}
        return "rolled_back" in kinds(client, "canary")

    until(rolled_back, SOON)
    until(lambda: not client.describe("canary").arms[1].probability, SOON)
    assert {answered(client, "canary") for _ in range(50)} == {"double"}
    began, over = client.events("canary").events
    assert (began.kind, began.numbers["share"]) == ("canary_began", 0.5)
    assert (over.kind, over.arm) == ("rolled_back", "fragile")
    assert over.numbers["failing.most.bad"] == over.numbers["failing.most.n"] > 0
    assert over.numbers["failing.most.low"] > over.numbers["failing.most.limit"] == 0.05
    assert "failing" in over.why
    canary = client.report("canary").canary
    assert (canary.arm, canary.outcome, canary.share) == ("fragile", "rolled_back", 0.0)


def test_a_good_canary_goes_through_its_steps_and_is_promoted(client):
    def promoted():
        arms_of(client, "promoted", 20)
        return "promoted" in kinds(client, "promoted")

    until(promoted, SOON)
    until(lambda: client.describe("promoted").arms[1].probability == 1.0, SOON)
    assert arms_of(client, "promoted", 50) == {"fragile": 50}
    said = kinds(client, "promoted")
    assert said[:2] == ["canary_began", "stepped"]
    assert said[-1] == "promoted"


def test_an_arm_that_breaks_a_guardrail_is_ejected_until_an_operator_brings_it_back(client):
    def ejected():
        for _ in range(20):
            answered(client, "ejected")
        return "ejected" in kinds(client, "ejected")

    until(ejected, SOON)
    until(lambda: allowed(client, "ejected") == ["double"], SOON)
    assert {answered(client, "ejected") for _ in range(50)} == {"double"}
    (arm,) = [arm for arm in client.report("ejected").arms if arm.name == "fragile"]
    assert arm.state == "ejected"
    assert client.switch("ejected", "fragile", on=True, why="it was the data").off == []
    until(lambda: allowed(client, "ejected") == ["double", "fragile"], SOON)
    assert kinds(client, "ejected") == ["ejected", "switched_on"]


def test_a_shadow_answers_nobody_and_its_disagreement_is_measured(router, client):
    assert arms_of(client, "shadowed", 40) == {"double": 40}
    shadow = {"route": "shadowed", "arm": "triple"}
    until(lambda: router.metric("croupier_shadow_requests_total", **shadow, outcome="different") == 40, SOON)
    assert router.metric("croupier_shadow_requests_total", **shadow) == 40
    difference = router.metric("croupier_shadow_difference_sum", **shadow)
    assert difference == pytest.approx(40 * ROWS.mean()), "triple less double is once"
    assert router.metric("croupier_requests_total", **shadow) == 0
    told = until(lambda: next(arm.shadow for arm in client.report("shadowed").arms if arm.shadow.compared), SOON)
    assert (told.compared, told.different) == (40, 40)


def test_another_arm_answers_for_one_that_is_away_and_explain_says_so(client):
    answers = [client.infer("failover", {"x": ROWS}) for _ in range(40)]
    assert {answer.arm for answer in answers} == {"double"}
    stood_in = [answer.decision for answer in answers if answer.propensity == 1.0]
    drawn = [answer.decision for answer in answers if answer.propensity == 0.5]
    assert len(stood_in) + len(drawn) == 40
    for decision, failed in (stood_in[0], True), (drawn[0], False):
        told = explained(client, decision)
        assert told.answered
        assert {arm.name: arm.failed for arm in told.arms} == {"double": False, "dead": failed}
        assert told.reproduced, told.differences


def explained(client, decision):
    """Why, as soon as the decision is committed."""
    until(lambda: code_of(lambda: client.explain(decision)) is Code.OK, SOON)
    return client.explain(decision)


def code_of(ask):
    """The status that a question is answered with."""
    try:
        ask()
    except grpc.RpcError as error:
        return refusal(error).code
    return Code.OK


def test_a_unit_keeps_its_arm(client):
    units = [f"customer-{n}" for n in range(20)]

    def drawn():
        return {unit: client.infer("sticky", {"x": ROWS}, unit=unit) for unit in units}

    first, again = drawn(), drawn()
    assert {unit: answer.arm for unit, answer in first.items()} == {unit: answer.arm for unit, answer in again.items()}
    assert {answer.arm for answer in first.values()} == {"double", "triple"}
    told = explained(client, again[units[0]].decision)
    assert told.sticky
    assert told.unit == "", "who it was is nobody's business"
    assert client.explain(again[units[0]].decision, show_unit=True).unit == units[0]


# ---------------------------------------------------------------------------------------------------------- access

KEYS = {"shop": "shop-key", "reader": "reader-key", "boss": "boss-key", "greedy": "greedy-key"}
ROLES: dict[str, dict[str, Any]] = {
    "shop": {"roles": ["infer", "feedback"]},
    "reader": {"roles": ["read"]},
    "boss": {"roles": ["read", "operate"]},
    "greedy": {"roles": ["infer"], "requests_per_second": 0.001, "burst": 2},
}


def clients(*names):
    return {name: {**ROLES[name], "key_sha256": hashlib.sha256(KEYS[name].encode()).hexdigest()} for name in names}


def bearer(name):
    return {"authorization": f"Bearer {KEYS[name]}"}


def test_each_client_may_do_what_its_roles_say(models, tmp_path):
    def write(*names, **more):
        routes = {"first": {"arms": ARMS, **more}}
        return write_config(tmp_path, routes, models=str(models), clients=clients(*names))

    with Router(write(*KEYS)) as router:
        address, admin = router.address, router.admin
        may = {}
        for name, key in {**KEYS, "stranger": "guess", "nobody": ""}.items():
            with Client(address, key=key) as client:
                decision = "0" * 32
                may[name] = [
                    code_of(lambda client=client: client.infer("first", {"x": ROWS})),
                    code_of(lambda client=client, decision=decision: client.reward(decision, 1.0)),
                    code_of(lambda client=client: client.describe("first")),
                    code_of(lambda client=client: client.switch("first", "triple", on=True, why="a test")),
                ]
                assert client.ready(), "whoever restarts processes has no key"
        denied, unknown = Code.PERMISSION_DENIED, Code.UNAUTHENTICATED
        assert may == {
            "shop": [Code.OK, Code.NOT_FOUND, denied, denied],
            "reader": [denied, denied, Code.OK, denied],
            "boss": [denied, denied, Code.OK, Code.OK],
            "greedy": [Code.OK, denied, denied, denied],
            "stranger": [unknown] * 4,
            "nobody": [unknown] * 4,
        }

        url = f"http://{address}/v1/routes/first"
        assert plain_http.get(url).status_code == 401
        assert plain_http.get(url, headers={"authorization": "Bearer guess"}).status_code == 401
        assert plain_http.get(url, headers=bearer("shop")).status_code == 403
        assert plain_http.get(url, headers=bearer("reader")).status_code == 200

        with Client(address, key=KEYS["greedy"]) as client:
            assert code_of(lambda: client.infer("first", {"x": ROWS})) is Code.OK
            assert code_of(lambda: client.infer("first", {"x": ROWS})) is Code.RESOURCE_EXHAUSTED

        with Client(address, key=KEYS["boss"]) as client:
            client.switch("first", "triple", on=True, why="another", who="Ada")
            assert [each.why for each in client.events("first").events] == ["boss: a test", "boss (Ada): another"]

        assert plain_http.get(f"http://{admin}/metrics").status_code == 401
        assert plain_http.get(f"http://{admin}/ready").status_code == 200
        assert plain_http.get(f"http://{admin}/metrics", headers=bearer("reader")).status_code == 200
        assert plain_http.post(f"http://{admin}/reload", headers=bearer("reader")).status_code == 403

        write("boss", floor=0.1)
        told = plain_http.post(f"http://{admin}/reload", headers=bearer("boss")).json()["changed"]
        assert [line for line in told if line.startswith("clients.reader.roles: ")]
        assert plain_http.get(url, headers=bearer("reader")).status_code == 401, "from now on"
        with Client(address, key=KEYS["boss"]) as client:
            assert client.events("first").events[-1].why == "boss: routes.first.floor: 0.0 -> 0.1"

        said = router.complained + router.printed + str(told)
        for name, key in KEYS.items():
            assert key not in said
            assert hashlib.sha256(key.encode()).hexdigest() not in said, name
        assert router.stop() == 0
