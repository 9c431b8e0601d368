"""Decisions of four replicas that learn together, fail over and restrict: each is made again from the log."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bandits import sampler
from protos.errors import CallError, Unavailable
from protos.grpc import Rpc
from protos.messages import FeedbackBatchRequest, FeedbackRequest
from router.answers.explain import explain, explanation
from router.answers.replay import key_of, made_again, refitted, scores
from router.call import REWARD, Batch, Credit, Decision, Fit, Outcome
from router.config import Route as Settings
from router.config.context import Feature
from router.config.rules import Rule
from router.config.safety import Canary, Moment, Schedule, Step
from router.learning.settings_json import settings_json, settings_of
from router.safety.schedule import scheduled
from router.stores import DECISIONS, Store
from router.stores.memory import MemoryStore
from router.stores.sqlite import SQLiteStore
from tests.router.fakes import FakeRouter, learning, settled

ARMS = ("steady", "bold", "robust")
ROUTES = """
routes:
  contextual:
    arms: {steady: {model: steady}, bold: {model: bold}, robust: {model: robust}}
    context:
      volatility: {tensor: x, column: 0, mean: 0.5, scale: 0.3}
      region: {metadata: region, levels: [eu, us], unknown: us, missing: eu}
    rules:
      - {name: storm, when: volatility > 0.9, use: robust}
      - {name: europe, when: region == "eu" and volatility < 0.1, never: [bold]}
    policy: {kind: linear_thompson}
    floor: 0.02
    guard: {failures: 3, seconds: 0.02}
    failover: {attempts: 2}
  sticky:
    arms: {steady: {model: steady}, bold: {model: bold}, robust: {model: robust}}
    policy: {kind: thompson}
    half_life_seconds: 3600
    sticky: true
    guard: {failures: 3, seconds: 0.02}
    failover: {attempts: 1, learn: answered}
  apprentice:
    arms: {steady: {model: steady}, bold: {model: bold}, robust: {model: robust}}
    champion: robust
    policy: {kind: top_two_thompson}
    apprentice: true
    salt: another
    budget: {share: 0.2}
    guard: {failures: 3, seconds: 0.02}
  canary:
    arms: {steady: {model: steady}, bold: {model: bold}, robust: {model: robust}}
    policy: {kind: thompson}
    floor: 0.05
    guard: {failures: 3, seconds: 0.02}
    guardrails: {errors: {watch: errors, action: roll_back, most: 0.3}}
    canary:
      arm: bold
      objective: guardrails
      steps: [{share: 0.1, calls: 20}, {share: 0.3, calls: 60}, {share: 0.5, calls: 1000}]
  ramp:
    arms: {steady: {model: steady}, bold: {model: bold}, robust: {model: robust}}
    schedule:
      between: linear
      moments:
        - {at: "2023-11-14T22:13:20Z", shares: {steady: 8, bold: 1, robust: 1}}
        - {at: "2023-11-14T22:15:00Z", shares: {steady: 1, bold: 8, robust: 1}}
"""
COUNTS = {"contextual": 4000, "sticky": 2000, "apprentice": 1500, "canary": 1500, "ramp": 1000}
WORTH = {"steady": 0.5, "bold": 0.6, "robust": 0.4}


async def lived(folder: Path, store: Store) -> None:
    """Four replicas answer ten thousand requests and are told of rewards, each by any of them."""
    rng = np.random.default_rng(5)
    requests = rng.permutation([route for route, n in COUNTS.items() for _ in range(n)]).tolist()
    async with AsyncExitStack() as stack:
        replicas = []
        for k in range(4):
            (folder / str(k)).mkdir()
            fake = FakeRouter(folder / str(k), store, entropy=bytes([k] * 6))
            fake.has(*ARMS)
            await fake.load(ROUTES)
            await stack.enter_async_context(learning(fake.learner))
            replicas.append(fake)
        for start in range(0, len(requests), 200):
            paid: list[FeedbackRequest] = []
            for i, route in enumerate(requests[start : start + 200], start):
                fake = replicas[i % 4]
                fake.clock.now += 0.05
                if rng.random() < 0.01:
                    fake.models.upstreams[str(rng.choice(ARMS))].fail(Unavailable("away"), times=4)
                unit = b"unit-%d" % rng.integers(400)
                rpc = Rpc([(b"region", [b"eu", b"us", b"??"][i % 3]), (b"croupier-unit", unit)])
                try:
                    told = await fake.infer(route, rpc=rpc, x=(float(rng.random()), 1.0))
                except CallError:
                    continue
                if rng.random() < 0.8:
                    arm = told.parameters["arm"].string_param
                    reward = float(rng.random() < WORTH[arm])
                    paid.append(FeedbackRequest(decision_id=told.parameters["decision_id"].string_param, reward=reward))
            await asyncio.gather(*(settled(fake.learner) for fake in replicas))
            outcomes = await replicas[start // 200 % 4].service.feedback_batch(FeedbackBatchRequest(items=paid))
            assert {outcome.code for outcome in outcomes.outcomes} <= {0}


@pytest.mark.anyio
async def test_ten_thousand_decisions_of_four_replicas_are_reproduced_and_the_log_adds_up_to_the_sums(tmp_path: Path):
    store = SQLiteStore(str(tmp_path / "store.db"))
    await lived(tmp_path, store)
    seen: Counter[str] = Counter()
    for route in COUNTS:
        sums = store.sums(route)
        fits: dict[str, Fit] = {}
        known = {}
        counted: Counter[str] = Counter()
        tallies = {arm: np.zeros(3) for arm in ARMS}
        for decision, outcomes in store.log(route):
            version = decision.policy_version
            if version not in fits:
                fit = store.fit(route, version)
                assert fit is not None, "the first decisions that name a version bring it"
                fits[version], known[version] = fit, refitted(fit)
            again = made_again(known[version], decision)
            assert again.differences == ()
            settings = known[version].settings
            race = scores(known[version].salt, ARMS, decision.probabilities or (), key_of(decision, settings))
            running = [(score, arm) for score, arm in zip(race, ARMS, strict=True) if score is not None]
            assert min(running)[1] == again.drawn[0]
            counted[decision.arm] += 1
            seen[route] += 1
            seen["failed over"] += bool(decision.failed) and decision.arm not in decision.failed
            seen["unanswered"] += decision.arm in decision.failed
            seen["ruled"] += bool(decision.rule)
            seen["left out"] += not decision.rule and decision.allowed != 0b111
            seen["proposed"] += decision.proposed is not None
            if route == "canary" and decision.allowed == 0b111:
                assert again.canary_share == known[version].canary_share == (decision.probabilities or ())[1]
                seen[f"canary of {again.canary_share}"] += 1
            if REWARD in outcomes:
                value = outcomes[REWARD].value
                tallies[decision.arm] += [1.0, value, value * value]
        assert {arm: sums[DECISIONS, arm][0] for arm in counted} == counted
        for arm, tally in tallies.items():
            assert tally.tolist() == sums[REWARD, arm].tolist() if tally[0] else (REWARD, arm) not in sums
        assert len(fits) > 10, "learning went on"
        seen["versions"] += len(fits)
    assert {route: seen[route] for route in COUNTS} == COUNTS, "also those that nobody answered are in the log"
    for what in "failed over", "unanswered", "ruled", "left out", "proposed", "canary of 0.1", "canary of 0.3":
        assert seen[what] > 20, f"{what}: {seen}"
    for decision, _ in list(store.log("contextual"))[::250]:
        told = explain(store, decision.id)
        assert told.reproduced, list(told.differences)
        assert [each.column for each in told.context] == ["volatility", "region=eu", "region=us"]
        assert told.unit == "", "not asked for"
    taught(store)
    store.close()


def taught(store: Store) -> None:
    """What the contextual policy was taught is the sum over the log of what each reward teaches."""
    log = [(decision, outcomes) for decision, outcomes in store.log("contextual") if REWARD in outcomes]
    fit = store.fit("contextual", log[-1][0].policy_version)
    assert fit is not None
    known = refitted(fit)
    expected = {arm: np.zeros(known.policy.width) for arm in ARMS}
    for decision, outcomes in log:
        if not decision.failed:  # the route does not learn from stand-ins
            context = np.array(decision.context)
            expected[decision.arm] += known.policy.delta(outcomes[REWARD].value, context, decision.propensity)
    sums = {arm: row for (layout, arm), row in store.sums("contextual").items() if layout.startswith("policy:")}
    for arm, row in expected.items():
        np.testing.assert_allclose(sums[arm], row, rtol=1e-9, atol=1e-9)


# --------------------------------------------------------------------------------------- what is not as it is written


@pytest.fixture
def decided(tmp_path: Path) -> tuple[Decision, Fit]:
    """A decision between three arms of which nothing is known, and what its policy knew."""

    async def decide() -> tuple[Decision, Fit]:
        fake = FakeRouter(tmp_path)
        fake.has("a", "b", "c")
        await fake.load("routes: {r: {arms: {a: {model: a}, b: {model: b}, c: {model: c}}, policy: {kind: thompson}}}")
        async with learning(fake.learner):
            await fake.infer("r")
            await settled(fake.learner)
        ((decision, _),) = fake.store.log("r")
        fit = fake.store.fit("r", decision.policy_version)
        assert fit is not None
        return decision, fit

    return asyncio.run(decide())


def test_another_probability_is_told(decided: tuple[Decision, Fit]):
    decision, fit = decided
    forged = msgspec.structs.replace(decision, probabilities=(0.25, 0.25, 0.5))
    told = explanation(forged, fit)
    assert not told.reproduced
    assert [difference.split(":")[0] for difference in told.differences] == [f"probability of {arm}" for arm in "abc"]
    assert "0.25 is written down, and 0.333" in told.differences[0]


def test_another_arm_is_told(decided: tuple[Decision, Fit]):
    decision, fit = decided
    other = next(arm for arm in "abc" if arm != decision.arm)
    told = explanation(msgspec.structs.replace(decision, arm=other), fit)
    assert list(told.differences) == [f"arm: {other} is written down, and {decision.arm} comes out"]


def test_another_propensity_is_told(decided: tuple[Decision, Fit]):
    decision, fit = decided
    told = explanation(msgspec.structs.replace(decision, propensity=0.5), fit)
    assert len(told.differences) == 1
    assert told.differences[0].startswith("propensity: 0.5 is written down, and 0.333")


def test_a_failure_that_was_not_drawn_is_told(decided: tuple[Decision, Fit]):
    decision, fit = decided
    other = next(arm for arm in "abc" if arm != decision.arm)
    told = explanation(msgspec.structs.replace(decision, failed=(other,)), fit)
    assert told.differences[0].startswith(f"arm: {other} then {decision.arm} is written down, and {decision.arm} then")


def test_what_was_proposed_is_compared_too(decided: tuple[Decision, Fit]):
    decision, fit = decided
    told = explanation(msgspec.structs.replace(decision, proposed=(1.0, 0.0, 0.0)), fit)
    assert list(told.differences) == ["proposed: it is written down or comes out, and not both"]


def test_another_time_than_that_of_the_id_is_told(decided: tuple[Decision, Fit]):
    decision, fit = decided
    forged = msgspec.structs.replace(decision, time=decision.time + 0.002)
    told = explanation(forged, fit)
    assert not told.reproduced
    assert list(told.differences) == [f"time: {forged.time!r} is written down, and the id is of {decision.time!r}"]


def ruled(decided: tuple[Decision, Fit], *arms: str) -> tuple[Decision, Fit]:
    """The same, where only these arms were allowed, by the rule "storm" of a route that has rules."""
    decision, fit = decided
    context = {"volatility": Feature(parameter="volatility")}
    storm = Rule(name="storm", when="volatility > 0.3", only=("a", "b"))
    settings = msgspec.structs.replace(settings_of(fit.settings), context=context, rules=(storm,))
    p = [float(arm in arms) / len(arms) for arm in "abc"]
    arm = "abc"[sampler("r", "abc")(np.array(p), decision.id)]
    drawn = msgspec.structs.replace(
        decision,
        context=(0.5,),
        rule="storm",
        allowed=sum(1 << "abc".index(arm) for arm in arms),
        probabilities=tuple(p),
        arm=arm,
        propensity=p["abc".index(arm)],
    )
    return drawn, Fit(fit.route, fit.version, settings_json(settings), fit.sums, fit.time)


def test_a_rule_that_the_route_had_is_reproduced_and_another_is_told(decided: tuple[Decision, Fit]):
    assert list(explanation(*ruled(decided, "a")).differences) == [], "b may have been switched off"
    decision, fit = ruled(decided, "a", "b")
    assert list(explanation(decision, fit).differences) == []
    told = explanation(msgspec.structs.replace(decision, rule="calm"), fit)
    assert list(told.differences) == ["rule: calm is written down, and the route had none of that name"]


def test_an_arm_that_the_rule_does_not_allow_is_told(decided: tuple[Decision, Fit]):
    told = explanation(*ruled(decided, *"abc"))
    assert list(told.differences) == ["allowed: c is written down, and rule storm does not allow it"]


def with_canary(decided: tuple[Decision, Fit], p: tuple[float, ...], *written: float) -> tuple[Decision, Fit]:
    """The same with a canary, c, a decision drawn from p, and a fit that has the canary's share `written` down."""
    decision, fit = decided
    canary = Canary(arm="c", steps=[Step(share=0.2, calls=1)])
    settings = settings_json(msgspec.structs.replace(settings_of(fit.settings), canary=canary), *written)
    arm = "abc"[sampler("r", "abc")(np.array(p), decision.id)]
    drawn = msgspec.structs.replace(decision, probabilities=p, arm=arm, propensity=p["abc".index(arm)])
    return drawn, Fit(fit.route, fit.version, settings, fit.sums, fit.time)


def test_a_canarys_share_is_what_was_in_force(decided: tuple[Decision, Fit]):
    told = explanation(*with_canary(decided, (0.4, 0.4, 0.2), 0.2))
    assert told.reproduced, list(told.differences)
    assert told.canary_share == 0.2


def test_another_share_than_was_in_force_is_told(decided: tuple[Decision, Fit]):
    told = explanation(*with_canary(decided, (0.4, 0.4, 0.2), 0.1))
    assert told.canary_share == 0.1
    assert told.differences[2].startswith("probability of c: 0.2 is written down, and 0.1 ")


def test_a_canary_that_had_ended_was_all_or_nothing(decided: tuple[Decision, Fit]):
    for p, share in ((0.0, 0.0, 1.0), 1.0), ((0.5, 0.5, 0.0), 0.0):
        told = explanation(*with_canary(decided, p, share))
        assert told.reproduced, list(told.differences)
        assert told.canary_share == share


def test_older_fits_tell_no_share_and_the_canarys_own_probability_does(decided: tuple[Decision, Fit]):
    mixed, fit = with_canary(decided, (0.4, 0.4, 0.2))
    told = explanation(mixed, fit)
    assert told.reproduced, list(told.differences)
    assert told.canary_share == 0.2
    lied = msgspec.structs.replace(mixed, probabilities=(0.5, 0.3, 0.2))
    assert not explanation(lied, fit).reproduced
    assert not explanation(mixed, decided[1]).reproduced


def test_a_schedule_is_where_it_was_when_the_version_was_made(decided: tuple[Decision, Fit]):
    decision, fit = decided
    ends = ((-100.0, 1.0), (100.0, 3.0))
    moments = [Moment(at=datetime.fromtimestamp(fit.time + t, UTC), shares={"a": 1.0, "b": b}) for t, b in ends]
    settings = Settings(arms=settings_of(fit.settings).arms, schedule=Schedule(moments=moments, between="linear"))
    p = (0.375, 0.625, 0.0)
    arm = "abc"[sampler("r", "abc")(np.array(p), decision.id)]
    drawn = msgspec.structs.replace(decision, probabilities=p, arm=arm, propensity=p["abc".index(arm)])
    then = settings_json(scheduled(settings, fit.time))
    told = explanation(drawn, Fit(fit.route, fit.version, then, fit.sums, fit.time))
    assert told.reproduced, list(told.differences)
    assert not told.arms[2].HasField("score"), "it could not be drawn"


def test_a_version_that_is_forgotten_is_told_and_what_is_known_is_shown_all_the_same(decided: tuple[Decision, Fit]):
    told = explanation(decided[0], None)
    assert not told.reproduced
    assert "is not in the store" in told.differences[0]
    assert [arm.probability for arm in told.arms] == list(decided[0].probabilities or ())
    assert told.arm == decided[0].arm


def test_settings_that_cannot_be_read_any_more_are_told(decided: tuple[Decision, Fit]):
    decision, fit = decided
    told = explanation(decision, Fit(fit.route, fit.version, '{"arms": {}}', fit.sums, fit.time))
    assert not told.reproduced
    assert told.differences[0].startswith("The policy cannot be fitted as it was: ")


def test_the_unit_is_shown_to_those_who_ask(decided: tuple[Decision, Fit]):
    decision, fit = decided
    known = msgspec.structs.replace(decision, unit="customer-7")
    assert explanation(known, fit).unit == ""
    assert explanation(known, fit, show_unit=True).unit == "customer-7"


def test_the_outcomes_are_told_with_the_decision(decided: tuple[Decision, Fit]):
    store = MemoryStore()
    decision, fit = decided
    credit = Credit(Outcome(decision.id, REWARD, 0.5, decision.time + 3.0))
    store.commit(Batch([decision], [credit], fits=[fit]))
    told = explain(store, decision.id)
    assert told.reproduced
    assert [(each.name, each.value) for each in told.outcomes] == [(REWARD, 0.5)]
