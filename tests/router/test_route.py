from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from bandits import sampler
from protos.errors import CallError, Code, DeadlineExceeded, InvalidArgument, ResourceExhausted, UpstreamError
from protos.messages import ModelInferResponse
from protos.tensors import outputs_of
from router.call import Call, Reply
from router.config import EpsilonGreedyPolicy, Failover, Guard, SplitPolicy, ThompsonPolicy
from router.config.safety import AnyGuardrail, Canary, ErrorGuardrail, Step
from router.errors import NoArmAllowed, NotRecorded
from router.learning.fitting import standing
from router.metrics import Metrics
from router.route import Route, Routes, permitted
from tests.router.bench import p_of
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
        self.registry = CollectorRegistry()
        arms, metrics = {"a": self.a, "b": self.b}, Metrics(self.registry)
        make_route(self.routes, self.log, arms, clock=self.clock, prometheus=metrics, **settings)
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
        decision, index = route.decide(call_of("credit", unit=unit))
        p = np.array(p_of(route))
        assert decision.propensity == p[index]
        assert decision.arm == f"arm{index}"
        assert p.sum() == pytest.approx(1)
        key = unit if sticky and unit else decision.id
        assert sampler("credit", list(upstreams))(p, key) == index, "replayed from the log alone"


@pytest.mark.parametrize("policy", [SplitPolicy(), EpsilonGreedyPolicy(epsilon=0.3), ThompsonPolicy()])
def test_arms_get_their_shares(policy):
    route = Bench(policy=policy).route
    counts = Counter(route.decide(call_of("credit"))[0].arm for _ in range(4000))
    assert counts["a"] == pytest.approx(2000, abs=5 * np.sqrt(1000))


def test_a_decision_says_all_there_is_to_know():
    bench = Bench()
    decision, index = bench.route.decide(call_of("credit", unit="jane"))
    assert (decision.route, decision.unit, decision.context) == ("credit", "jane", None)
    assert (decision.time, decision.policy_version) == (bench.clock(), "nothing")
    assert decision.probabilities == (0.999999, 0.000001)
    assert (decision.propensity, decision.allowed) == (decision.probabilities[index], 0b11)
    assert (decision.failed, decision.rule, decision.proposed, decision.prediction) == ((), "", None, None)


def test_a_sticky_unit_keeps_its_arm_and_units_are_spread():
    route = Bench(policy=SplitPolicy(), sticky=True).route
    first = {unit: route.decide(call_of("credit", unit=unit))[0].arm for unit in map(str, range(400))}
    assert first == {unit: route.decide(call_of("credit", unit=unit))[0].arm for unit in first}
    assert Counter(first.values())["a"] == pytest.approx(200, abs=50)


def test_a_ramp_moves_only_units_that_it_must():
    before = Bench(policy=SplitPolicy(weights={"a": 90.0, "b": 10.0}), sticky=True).route
    after = Bench(policy=SplitPolicy(weights={"a": 80.0, "b": 20.0}), sticky=True).route
    moves = Counter(
        (before.decide(call_of("credit", unit=u))[0].arm, after.decide(call_of("credit", unit=u))[0].arm)
        for u in map(str, range(2000))
    )
    assert moves["b", "a"] == 0
    assert moves["a", "b"] == pytest.approx(200, abs=70)


def test_routes_of_one_salt_choose_alike_and_others_independently():
    def arms(**settings) -> list[str]:
        route = make_route(
            Routes(), FakeLog(), {"a": FakeUpstream(), "b": FakeUpstream()}, clock=FakeClock(), sticky=True, **settings
        )
        return [route.decide(call_of("credit", unit=unit))[0].arm for unit in map(str, range(200))]

    assert arms(name="one", salt="same") == arms(name="two", salt="same")
    assert arms(name="one") == arms(name="two", salt="one"), "without a salt it is the name"
    agreeing = sum(x == y for x, y in zip(arms(name="one"), arms(name="two"), strict=True))
    assert 60 < agreeing < 140


@pytest.mark.parametrize("sticky", [False, True])
def test_without_stickiness_or_a_unit_each_request_is_drawn_anew(sticky: bool):
    route = Bench(policy=SplitPolicy(), sticky=sticky).route
    unit = "" if sticky else "jane"
    assert {route.decide(call_of("credit", unit=unit))[0].arm for _ in range(50)} == {"a", "b"}


def test_a_route_with_no_arm_left_says_that_none_is_drawn():
    route = replace(Bench().route, allowed=np.array([False, False]))
    np.testing.assert_array_equal(route.probabilities(), [0.0, 0.0])


# --------------------------------------------------------------------------------------------------------- metrics


def counted(bench: Bench, code: Code) -> float:
    labels = {"route": "credit", "arm": "a", "code": code.name}
    return bench.registry.get_sample_value("croupier_requests_total", labels) or 0.0


def timed(bench: Bench) -> float | None:
    return bench.registry.get_sample_value("croupier_request_seconds_count", {"route": "credit", "arm": "a"})


async def test_every_answer_of_an_arm_is_counted_under_its_status_and_timed():
    bench = Bench(failover=Failover(attempts=0))
    await bench.ask()
    for error, code in [
        (InvalidArgument("bad"), Code.INVALID_ARGUMENT),
        (ResourceExhausted("full"), Code.RESOURCE_EXHAUSTED),
        (RuntimeError("broken"), Code.INTERNAL),
    ]:
        bench.a.fail(error)
        with pytest.raises(type(error)):
            await bench.ask()
        assert counted(bench, code) == 1
    assert counted(bench, Code.OK) == 1
    assert timed(bench) == 4


async def test_a_caller_who_left_is_counted_as_cancelled():
    bench = Bench()
    held = bench.a.hold()
    left = asyncio.ensure_future(bench.ask())
    await held.arrived.wait()
    assert timed(bench) == 0
    left.cancel()
    await asyncio.wait([left])
    assert (counted(bench, Code.CANCELLED), timed(bench)) == (1, 1)


async def test_nothing_that_a_client_sends_becomes_a_label():
    bench = Bench()
    call = call_of("credit", unit="jane@example.com", id="secret-id")
    call.metadata = {"authorization": "secret-token"}
    await bench.handler(call)
    samples = [sample for family in bench.registry.collect() for sample in family.samples]
    assert samples
    values = {value for sample in samples for value in sample.labels.values()}
    assert not {value for value in values if "secret" in value or "jane" in value}


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
        (b"croupier-decision", decision.id.encode()),
        (b"croupier-arm", b"a"),
        (b"croupier-propensity", repr(decision.propensity).encode()),
    ]
    assert decision.unit == "jane"


async def test_what_an_arm_says_beside_its_outputs_stays():
    bench = Bench()

    class Talkative(FakeUpstream):
        async def __call__(self, call: Call) -> Reply:
            response = ModelInferResponse(model_name="inner", id="i")
            response.parameters["calibrated"].bool_param = True
            response.parameters["arm"].string_param = "of a router behind this one"
            return Reply(response.SerializeToString(), [(b"x-model", b"m")])

    arms = (replace(bench.route.arms[0], upstream=Talkative()), bench.route.arms[1])
    reply = await replace(bench.route, arms=arms)(call_of("credit"))
    response = ModelInferResponse.FromString(reply.body)
    assert response.parameters["calibrated"].bool_param
    assert response.parameters["arm"].string_param == "a"
    assert reply.metadata[0] == (b"x-model", b"m")


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


async def test_a_call_that_failed_is_written_down_as_failed_since_its_arm_took_its_share_of_the_draws():
    bench = Bench()
    bench.a.fail(BROKEN)
    with pytest.raises(UpstreamError, match="it broke"):
        await bench.ask()
    (decision,) = bench.log.decisions
    assert (decision.arm, decision.failed) == ("a", ("a",))


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
    before = [route.decide(call_of("credit", unit=unit))[0].arm for unit in units]
    after = [without_a.decide(call_of("credit", unit=unit))[0].arm for unit in units]
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


# ------------------------------------------------------------------------------------------------------- the failover

AWAY = UpstreamError("down", Code.UNAVAILABLE, retry=True)


async def test_another_arm_answers_for_one_that_is_away():
    bench = Bench(failover=Failover(attempts=1))
    bench.a.fail(AWAY)
    answer = await bench.ask()
    assert answer.parameters["arm"].string_param == "b"
    (decision,) = bench.log.decisions
    assert (decision.arm, decision.failed) == ("b", ("a",))
    assert decision.propensity == answer.parameters["propensity"].double_param == 1.0
    assert decision.probabilities == (0.999999, 0.000001), "what was drawn from at first"


async def test_the_arm_that_stands_in_is_the_one_that_would_have_been_drawn_had_the_other_never_been():
    upstreams = {name: FakeUpstream(name) for name in "abcd"}
    log = FakeLog()
    route = make_route(Routes(), log, upstreams, clock=FakeClock(), sticky=True, failover=Failover(attempts=3))
    without_a = sampler("credit", list("abcd"))
    for n in range(100):
        unit = f"unit{n}"
        first, _ = route.decide(call_of("credit", unit=unit))
        upstreams[first.arm].fail(AWAY)
        await route(call_of("credit", unit=unit))
        p = np.array([name != first.arm for name in "abcd"]) / 3
        decision = log.decisions[-1]
        assert decision.arm == "abcd"[without_a(p, unit)]
        assert decision.propensity == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("error", "attempts"), [(AWAY, 0), (BROKEN, 1), (InvalidArgument("bad tensor"), 1), (DeadlineExceeded("late"), 1)]
)
async def test_only_what_may_pass_is_tried_elsewhere_and_only_where_that_is_asked_for(error: CallError, attempts: int):
    bench = Bench(failover=Failover(attempts=attempts))
    bench.a.fail(error)
    with pytest.raises(type(error)):
        await bench.ask()
    assert not bench.b.calls


async def test_what_nobody_answered_is_written_down_with_all_that_failed():
    bench = Bench(failover=Failover(attempts=5))
    bench.a.fail(AWAY)
    bench.b.fail(AWAY)
    with pytest.raises(UpstreamError, match="down"):
        await bench.ask()
    (decision,) = bench.log.decisions
    assert decision.failed == ("a", "b")


async def test_what_the_client_did_wrong_is_no_decision():
    bench = Bench(failover=Failover(attempts=1))
    bench.a.fail(InvalidArgument("bad tensor"))
    with pytest.raises(InvalidArgument):
        await bench.ask()
    assert not bench.log.decisions


# ----------------------------------------------------------------------------------- the champion and the apprentice


def test_an_apprentice_looks_on_while_the_champion_answers():
    route = Bench(champion="b", apprentice=True).route
    for _ in range(20):
        decision, index = route.decide(call_of("credit"))
        assert (decision.arm, index, decision.propensity) == ("b", 1, 1.0)
        assert decision.probabilities == (0.0, 1.0)
        assert decision.proposed == (0.999999, 0.000001)


async def test_an_apprentice_stands_in_for_a_champion_that_is_out():
    bench = Bench(champion="a", apprentice=True)
    await bench.leave_out_a()
    decision, _ = bench.route.decide(call_of("credit"))
    assert (decision.arm, decision.propensity, decision.proposed, decision.allowed) == ("b", 1.0, None, 0b10)


# ------------------------------------------------------------------------------------------------------- permission


ALL = np.ones(3, dtype=np.bool_)


def test_an_arm_that_is_switched_off_is_never_drawn_however_ill_the_others_are():
    on, healthy = np.array([True, False, True]), np.array([False, True, False])
    assert permitted(on, healthy, ALL).tolist() == [True, False, True], "health gives way where it would leave none"
    assert permitted(on, np.array([True, True, False]), ALL).tolist() == [True, False, False]


def test_an_arm_that_is_there_for_nobody_is_no_stand_in_for_those_that_are_ill():
    healthy, drawable = np.array([False, False, True]), np.array([True, True, False])
    assert permitted(ALL, healthy, drawable).all()


async def test_a_champion_that_fails_serves_on_where_the_canary_was_rolled_back():
    canary = Canary(arm="b", steps=[Step(share=0.1, calls=1)])
    guardrails: dict[str, AnyGuardrail] = {"errors": ErrorGuardrail(most=0.1, action="roll_back")}
    bench = Bench(canary=canary, guardrails=guardrails)
    bench.routes.publish(standing(replace(bench.route, share=0.0), bench.route.sums))
    await bench.leave_out_a()
    decision, _ = bench.route.decide(call_of("credit"))
    assert (decision.arm, decision.probabilities) == ("a", (1.0, 0.0))


async def test_an_arm_that_fails_serves_on_where_the_split_gives_the_other_nothing():
    bench = Bench(policy=SplitPolicy(weights={"a": 1.0, "b": 0.0}))
    await bench.leave_out_a()
    assert bench.route.decide(call_of("credit"))[0].arm == "a"


def test_a_request_for_which_only_an_arm_without_a_share_is_left_is_told_so():
    bench = Bench(policy=SplitPolicy(weights={"a": 1.0, "b": 0.0}))
    only_b = np.array([False, True])
    route = replace(bench.route, switched_on=only_b, allowed=only_b)
    with pytest.raises(NoArmAllowed, match="are switched off, or have no share of the calls"):
        route.decide(call_of("credit"))


def test_a_route_that_is_switched_off_says_so():
    off = np.zeros(2, dtype=np.bool_)
    route = replace(Bench().route, switched_on=off, allowed=off)
    with pytest.raises(NoArmAllowed, match="'credit' has no arm for this request: all of its arms are switched off"):
        route.decide(call_of("credit"))
