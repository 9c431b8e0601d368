from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import sampler
from protos.errors import CallError, Code, DeadlineExceeded, InvalidArgument, UpstreamError
from protos.messages import ModelInferResponse
from protos.tensors import outputs_of
from router.call import Call, Reply, Vector
from router.config import EpsilonGreedyPolicy, Guard, SplitPolicy, ThompsonPolicy
from router.errors import NotRecorded
from router.route import Route, Routes
from tests.router.fakes import FakeClock, FakeLog, FakeUpstream, call_of, make_route

pytestmark = pytest.mark.anyio

BROKEN = UpstreamError("it broke", Code.INTERNAL)


class Bench:
    """One route over two fake arms, in which a weight of 0.999999 makes sure that arm "a" is drawn."""

    def __init__(self, **settings) -> None:
        self.clock = FakeClock()
        self.routes = Routes()
        self.log = FakeLog()
        self.a, self.b = FakeUpstream("double-a"), FakeUpstream("double-b")
        settings.setdefault("policy", SplitPolicy(weights={"a": 999_999.0, "b": 1.0}))
        settings.setdefault("guard", Guard(failures=2, seconds=10.0))
        make_route(self.routes, self.log, {"a": self.a, "b": self.b}, clock=self.clock, **settings)
        self.handler = self.routes.handler("credit")

    @property
    def route(self) -> Route:
        return self.routes.current["credit"]

    @property
    def allowed(self) -> list[bool]:
        return [bool(allowed) for allowed in self.route.allowed]

    async def ask(self, **more) -> ModelInferResponse:
        reply = await self.handler(call_of("credit", **more))
        return ModelInferResponse.FromString(reply.body)

    async def leave_out_a(self) -> None:
        self.a.fail(BROKEN, times=2)
        for _ in range(2):
            with pytest.raises(UpstreamError):
                await self.ask()

    def probe_a(self) -> None:
        """Its time has come: the next call is the probe."""
        self.clock.advance(1000)
        assert self.route.guard.tick()
        self.routes.guard_changed("credit")


# ------------------------------------------------------------------------------------------------------- the choice


@settings(max_examples=50)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.text(max_size=20), st.booleans())
def test_what_is_logged_is_what_was_drawn_from(weights: list[float], unit: str, sticky: bool):
    upstreams = {f"arm{index}": FakeUpstream() for index in range(len(weights))}
    policy = SplitPolicy(weights=dict(zip(upstreams, weights, strict=True)))
    route = make_route(Routes(), FakeLog(), upstreams, clock=FakeClock(), policy=policy, sticky=sticky)
    for _ in range(20):
        decision, index = route.decide(unit, None)
        p = route.probabilities()
        assert decision.propensity == p[index]
        assert decision.arm == f"arm{index}"
        assert p.sum() == pytest.approx(1)
        key = unit if sticky and unit else decision.id
        assert sampler("credit", list(upstreams))(p, key) == index, "replayed from the log alone"


@pytest.mark.parametrize("policy", [SplitPolicy(), EpsilonGreedyPolicy(epsilon=0.3), ThompsonPolicy()])
def test_arms_get_their_shares(policy):
    route = Bench(policy=policy).route
    counts = Counter(route.decide("", None)[0].arm for _ in range(4000))
    assert counts["a"] == pytest.approx(2000, abs=5 * np.sqrt(1000))


def test_a_decision_says_all_there_is_to_know():
    bench = Bench()
    decision, _ = bench.route.decide("jane", np.array([0.5, -1.0]))
    assert (decision.route, decision.unit, decision.context) == ("credit", "jane", (0.5, -1.0))
    assert (decision.time, decision.policy_version) == (bench.clock(), "nothing")
    assert bench.route.decide("", None)[0].context is None


def test_a_sticky_unit_keeps_its_arm_and_units_are_spread():
    route = Bench(policy=SplitPolicy(), sticky=True).route
    first = {unit: route.decide(unit, None)[0].arm for unit in map(str, range(400))}
    assert first == {unit: route.decide(unit, None)[0].arm for unit in first}
    assert Counter(first.values())["a"] == pytest.approx(200, abs=50)


def test_a_ramp_moves_only_units_that_it_must():
    before = Bench(policy=SplitPolicy(weights={"a": 90.0, "b": 10.0}), sticky=True).route
    after = Bench(policy=SplitPolicy(weights={"a": 80.0, "b": 20.0}), sticky=True).route
    moves = Counter((before.decide(u, None)[0].arm, after.decide(u, None)[0].arm) for u in map(str, range(2000)))
    assert moves["b", "a"] == 0
    assert moves["a", "b"] == pytest.approx(200, abs=70)


def test_routes_of_one_salt_choose_alike_and_others_independently():
    def arms(**settings) -> list[str]:
        route = make_route(
            Routes(), FakeLog(), {"a": FakeUpstream(), "b": FakeUpstream()}, clock=FakeClock(), sticky=True, **settings
        )
        return [route.decide(unit, None)[0].arm for unit in map(str, range(200))]

    assert arms(name="one", salt="same") == arms(name="two", salt="same")
    assert arms(name="one") == arms(name="two", salt="one"), "without a salt it is the name"
    agreeing = sum(x == y for x, y in zip(arms(name="one"), arms(name="two"), strict=True))
    assert 60 < agreeing < 140


@pytest.mark.parametrize("sticky", [False, True])
def test_without_stickiness_or_a_unit_each_request_is_drawn_anew(sticky: bool):
    route = Bench(policy=SplitPolicy(), sticky=sticky).route
    unit = "" if sticky else "jane"
    assert {route.decide(unit, None)[0].arm for _ in range(50)} == {"a", "b"}


# ------------------------------------------------------------------------------------------------------- the answer


async def test_the_answer_is_the_arms_under_the_routes_name_with_the_decision_beside_it():
    bench = Bench()
    reply = await bench.handler(call_of("credit", x=[1.5, 2.0], id="r1", unit="jane"))
    response = ModelInferResponse.FromString(reply.body)
    (decision,) = bench.log.decisions
    assert (response.model_name, response.model_version, response.id) == ("credit", "7", "r1")
    np.testing.assert_array_equal(outputs_of(response)["y"], [3.0, 4.0])
    parameters = response.parameters
    assert parameters["decision_id"].string_param == decision.id
    assert parameters["arm"].string_param == decision.arm == "a"
    assert parameters["propensity"].double_param == decision.propensity
    assert reply.metadata == [
        ("croupier-decision", decision.id),
        ("croupier-arm", "a"),
        ("croupier-propensity", repr(decision.propensity)),
    ]
    assert decision.unit == "jane"


async def test_what_an_arm_says_beside_its_outputs_stays():
    bench = Bench()

    async def talkative(call: Call) -> Reply:
        response = ModelInferResponse(model_name="inner", id="i")
        response.parameters["calibrated"].bool_param = True
        response.parameters["arm"].string_param = "of a router behind this one"
        return Reply(response.SerializeToString(), [("x-model", "m")])

    arms = (replace(bench.route.arms[0], handler=talkative), bench.route.arms[1])
    reply = await replace(bench.route, arms=arms)(call_of("credit"))
    response = ModelInferResponse.FromString(reply.body)
    assert response.parameters["calibrated"].bool_param
    assert response.parameters["arm"].string_param == "a"
    assert reply.metadata[0] == ("x-model", "m")


async def test_a_request_sees_one_policy_from_start_to_end():
    bench = Bench()
    held = bench.a.hold()
    asked = asyncio.create_task(bench.ask())
    await held.arrived.wait()
    newer = SplitPolicy(weights={"a": 1.0, "b": 1.0}).build(["a", "b"])
    bench.routes.publish(replace(bench.route, version="newer", fitted=newer.fit(np.zeros((2, 3)))))
    held.release()
    await asked
    await bench.ask()
    before, after = bench.log.decisions
    assert (before.policy_version, after.policy_version) == ("nothing", "newer")
    assert before.propensity == pytest.approx(0.999999)
    assert after.propensity == 0.5


async def test_a_call_that_failed_is_not_written_down_as_nobody_can_report_what_it_earned():
    bench = Bench()
    bench.a.fail(BROKEN)
    with pytest.raises(UpstreamError, match="it broke"):
        await bench.ask()
    assert bench.log.decisions == []


async def test_a_strict_log_is_waited_for():
    bench = Bench(strict_log=True)
    asked = asyncio.create_task(bench.ask())
    while not bench.log.decisions:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not asked.done()
    bench.log.durable.set()
    response = await asked
    assert response.parameters["decision_id"].string_param == bench.log.decisions[0].id


async def test_what_a_strict_log_cannot_write_down_is_not_answered_and_the_arm_is_not_to_blame():
    bench = Bench(strict_log=True)
    bench.log.durable.set()
    bench.log.fault = NotRecorded()
    for _ in range(5):
        with pytest.raises(NotRecorded):
            await bench.ask()
    assert bench.allowed == [True, True]


# ------------------------------------------------------------------------------------------------------- the guard


async def test_a_failing_arm_is_left_out_and_the_others_share_what_it_had():
    bench = Bench()
    await bench.leave_out_a()
    assert bench.allowed == [False, True]
    response = await bench.ask()
    assert response.parameters["arm"].string_param == "b"
    assert response.parameters["propensity"].double_param == 1.0
    assert bench.log.decisions[-1].propensity == 1.0


async def test_an_arm_left_out_moves_nobody_between_the_others():
    upstreams = {"a": FakeUpstream(), "b": FakeUpstream(), "c": FakeUpstream()}
    route = make_route(Routes(), FakeLog(), upstreams, clock=FakeClock(), sticky=True)
    without_a = replace(route, allowed=np.array([False, True, True]))
    units = [str(unit) for unit in range(500)]
    before = [route.decide(unit, None)[0].arm for unit in units]
    after = [without_a.decide(unit, None)[0].arm for unit in units]
    assert all(x == y for x, y in zip(before, after, strict=True) if x != "a")


async def test_one_probe_brings_an_arm_back():
    bench = Bench()
    await bench.leave_out_a()
    bench.probe_a()
    held = bench.a.hold()
    probe = asyncio.create_task(bench.ask())
    await held.arrived.wait()
    assert bench.allowed == [False, True], "nobody else gets in"
    assert (await bench.ask()).parameters["arm"].string_param == "b"
    held.release()
    assert (await probe).parameters["arm"].string_param == "a"
    assert bench.allowed == [True, True]


async def test_a_probe_that_fails_leaves_the_arm_out_for_longer():
    bench = Bench()
    await bench.leave_out_a()
    bench.probe_a()
    bench.a.fail(RuntimeError("still broken"))
    with pytest.raises(RuntimeError):
        await bench.ask()
    assert bench.allowed == [False, True]
    bench.clock.advance(10)
    assert not bench.route.guard.tick()
    bench.clock.advance(10)
    assert bench.route.guard.tick()


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_a_probe_whose_caller_left_is_given_back(how: str):
    bench = Bench()
    await bench.leave_out_a()
    bench.probe_a()
    if how == "cancelled":
        held = bench.a.hold()
        probe = asyncio.create_task(bench.ask())
        await held.arrived.wait()
        probe.cancel()
        await asyncio.wait([probe])
        assert probe.cancelled()
    else:
        bench.a.fail(DeadlineExceeded("too late"))
        with pytest.raises(DeadlineExceeded):
            await bench.ask()
    assert bench.allowed == [True, True]
    assert (await bench.ask()).parameters["arm"].string_param == "a", "the next call is the probe"
    assert bench.allowed == [True, True]


async def test_calls_from_before_the_probe_do_not_give_it_back():
    bench = Bench()
    early = bench.a.hold()
    leaving = asyncio.create_task(bench.ask())
    await early.arrived.wait()
    await bench.leave_out_a()
    bench.probe_a()
    held = bench.a.hold()
    probe = asyncio.create_task(bench.ask())
    await held.arrived.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    assert bench.allowed == [False, True], "the probe is still on its way"
    held.release()
    await probe
    assert bench.allowed == [True, True]


@pytest.mark.parametrize("error", [InvalidArgument("bad tensor"), DeadlineExceeded("too late")])
async def test_what_a_client_did_wrong_is_not_the_arms_failure(error: CallError):
    bench = Bench()
    bench.a.fail(error, times=20)
    for _ in range(20):
        with pytest.raises(type(error)):
            await bench.ask()
    assert bench.allowed == [True, True]


async def test_an_arm_that_hangs_until_the_deadline_has_not_succeeded():
    bench = Bench()
    bench.a.fail(BROKEN)
    bench.a.fail(DeadlineExceeded("too late"))
    bench.a.fail(BROKEN)
    for _ in range(3):
        with pytest.raises(CallError):
            await bench.ask()
    assert bench.allowed == [False, True], "two failures in a row, and between them nothing that proves anything"


@pytest.mark.parametrize("error", [BROKEN, UpstreamError("down", Code.UNAVAILABLE, retry=True), OSError("reset")])
async def test_whatever_else_goes_wrong_is(error: Exception):
    bench = Bench()
    bench.a.fail(error, times=2)
    for _ in range(2):
        with pytest.raises(type(error)):
            await bench.ask()
    assert bench.allowed == [False, True]


async def test_the_last_arm_serves_on_with_its_own_errors():
    bench = Bench()
    await bench.leave_out_a()
    bench.b.fail(BROKEN, times=10)
    for _ in range(10):
        with pytest.raises(UpstreamError, match="it broke"):
            await bench.ask()
    assert bench.allowed == [False, True]


async def test_the_only_arm_with_a_share_is_never_left_out():
    bench = Bench(policy=SplitPolicy(weights={"a": 1.0, "b": 0.0}))
    await bench.leave_out_a()
    assert bench.allowed == [True, True]
    assert (await bench.ask()).parameters["arm"].string_param == "a"


async def test_a_route_that_was_removed_meanwhile_answers_its_calls():
    bench = Bench()
    await bench.leave_out_a()
    bench.probe_a()
    held = bench.a.hold()
    asked = asyncio.create_task(bench.ask())
    await held.arrived.wait()
    bench.routes.current = {}
    held.release()
    assert (await asked).parameters["arm"].string_param == "a"


# ------------------------------------------------------------------------------------------------------ the contexts


async def test_the_context_reaches_policy_and_log():
    bench = Bench()
    seen: list[Vector | None] = []

    def by_context(context, allowed):
        seen.append(context)
        return np.array([0.25, 0.75])

    features = np.array([1.0, 2.0])
    await replace(bench.route, fitted=by_context)(call_of("credit", context=features))
    assert seen == [features]
    (decision,) = bench.log.decisions
    assert decision.context == (1.0, 2.0)
    assert decision.propensity in (0.25, 0.75)
