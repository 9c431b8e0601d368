from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.anytime import aipw_terms
from router.call import Add, Decision, Vector
from router.config.reward import Range
from router.config.safety import (
    AnyGuardrail,
    ErrorGuardrail,
    LatencyGuardrail,
    MetricGuardrail,
    RewardGuardrail,
    check_guardrails,
)
from router.config.struct import Name, Struct
from router.safety.comparisons import difference_row, odds_guardrail, odds_row, weighed_row
from router.safety.guardrails import Finding, Watch, bounds_of, judge, standing
from router.safety.tally import Tally, reported

ARMS = ["champion", "new"]
EVEN = (0.5, 0.5)
UNIT = Range()
ERRORS = ErrorGuardrail(most=0.05, times=2.0, action="eject")
SLOW = LatencyGuardrail(seconds=0.1, quantile=0.99, times=2.0)

Sums = dict[tuple[str, str], Vector]


def watches(reward: Range = UNIT, since: dict[str, float] | None = None, **guardrails: AnyGuardrail) -> list[Watch]:
    return standing(guardrails, ARMS, "champion", reward, since or {})


def added(*adds: list[Add]) -> Sums:
    sums: Sums = {}
    for add in (add for each in adds for add in each):
        key = add.layout, add.arm
        sums[key] = sums[key] + add.row if key in sums else add.row
    return sums


def judged(told: list[Watch], sums: Sums) -> dict[tuple[str, str], Finding]:
    return {(each.arm, each.name): each for watch in told for each in judge(watch, sums, ARMS)}


def decision(arm: int, p: tuple[float, ...] = EVEN, **more) -> Decision:
    told = {"id": "d", "route": "r", "arm": ARMS[arm], "propensity": p[arm], "time": 100.0, "policy_version": "v"}
    return Decision(**{**told, "probabilities": p, **more})


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"watch": "errors"}, "most: give this or times"),
        ({"watch": "errors", "most": 1.5}, "most: must lie between 0 and 1"),
        ({"watch": "errors", "times": 0.5}, "times: must be at least 1"),
        ({"watch": "errors", "most": 0.1, "floor": 0.1}, "floor: belongs to times"),
        ({"watch": "errors", "most": 0.1, "alpha": 0.5}, "alpha: must be above 0 and below 0.5"),
        ({"watch": "latency", "quantile": 0.99}, "missing required field `seconds`"),
        ({"watch": "latency", "seconds": 0.1, "quantile": 99.0}, "quantile: must lie between 0 and 1"),
        ({"watch": "reward"}, "least: give this or margin"),
        ({"watch": "reward", "margin": -1.0}, "margin: must not be below 0"),
        ({"watch": "metric", "metric": "pnl", "range": {"low": -1, "high": 1}, "bound": 2.0}, "must lie in the range"),
        ({"watch": "errors", "most": 0.1, "action": "explode"}, "Invalid enum value 'explode'"),
        ({"watch": "weather"}, "Invalid value 'weather'"),
    ],
)
def test_a_guardrail_that_cannot_be_judged_is_refused(told: dict, sentence: str):
    class Route(Struct, frozen=True):
        guardrails: dict[Name, AnyGuardrail]

    with pytest.raises(msgspec.ValidationError, match=sentence.replace("(", r"\(")):
        msgspec.convert({"guardrails": {"g": told}}, Route)


def test_a_guardrail_must_fit_its_route():
    pnl = MetricGuardrail(metric="pnl", range=Range(), bound=0.5)
    for guardrail, sentence in (
        (pnl, "g: the route declares the metrics cost, not 'pnl'"),
        (RewardGuardrail(least=2.0), "g: least must lie in the route's range"),
        (ErrorGuardrail(most=0.1, action="roll_back"), "g: the action roll_back is for a route with a canary"),
    ):
        with pytest.raises(ValueError, match=sentence):
            check_guardrails({"g": guardrail}, reward=Range(), metrics=["cost"], canary=None)
    check_guardrails({"g": pnl}, reward=Range(), metrics=["pnl"], canary=None)


def test_what_is_good_in_the_settings_units_becomes_what_is_bad_from_0_to_1():
    reward = bounds_of("g", RewardGuardrail(least=2.0, margin=1.0), Range(low=0.0, high=10.0))
    assert reward.most == pytest.approx(0.8)
    assert reward.margin == pytest.approx(0.1)
    assert [reward.bad.part(value) for value in (10.0, 2.0, 0.0, -5.0)] == pytest.approx([0.0, 0.8, 1.0, 1.0])
    cost = MetricGuardrail(metric="cost", range=Range(low=0.0, high=4.0), worse="higher", bound=1.0, margin=2.0)
    bounds = bounds_of("g", cost, Range())
    assert (bounds.most, bounds.margin) == (0.25, 0.5)
    assert [bounds.bad.part(value) for value in (0.0, 1.0, 9.0)] == [0.0, 0.25, 1.0]
    assert bounds_of("g", SLOW, Range()).most == pytest.approx(0.01)


def test_alpha_is_shared_by_arms_and_bounds_and_the_champion_is_not_compared_with_itself():
    champion, new = watches(errors=ERRORS)
    assert [(each.count, each.alpha) for each in champion.bounds] == [(1, 0.005)]
    assert [(each.count, each.alpha) for each in new.bounds] == [(2, 0.0025)]
    assert [watch.arm for watch in watches(errors=ErrorGuardrail(times=2.0))] == ["new"]
    assert not watches(errors=ErrorGuardrail(times=2.0, action="roll_back")), "that is the canary's"


# --------------------------------------------------------------------------------------------------- tally


def test_what_is_counted_is_drawn_off_once_and_put_back_if_it_was_not_committed():
    told = watches(errors=ERRORS)
    tally = Tally("r", ARMS, told)
    for failed in (False, True, False):
        tally.count(1, 0.01, EVEN, failed=failed)
    adds = tally.drain()
    assert not tally.drain()
    tally.put_back(adds)
    tally.count(1, 0.01, EVEN, failed=True)
    sums = added(tally.drain())
    numbers = judged(told, sums)["new", "errors.most"].numbers
    assert (numbers["n"], numbers["bad"]) == (4, 2)
    odds = judged(told, sums)["new", "errors.times"].numbers
    assert (odds["n"], odds["bad"], odds["bad_of_champion"]) == (4, 2, 0)
    assert odds["limit"] == pytest.approx(2 / 3), "so much of the failures of both may be its own"


def test_a_call_that_was_given_up_is_slow_if_it_was_already_and_otherwise_proves_nothing():
    told = watches(slow=SLOW)
    tally = Tally("r", ARMS, told)
    tally.count(1, 0.05, EVEN, failed=False)
    tally.count(1, 0.15, EVEN, failed=False)
    tally.abandon(1, 0.05, EVEN)
    tally.abandon(1, 0.15, EVEN)
    numbers = judged(told, added(tally.drain()))["new", "slow.most"].numbers
    assert (numbers["n"], numbers["bad"]) == (3, 2)


@given(st.lists(st.tuples(st.integers(0, 1), st.booleans(), st.floats(0, 1), st.booleans()), max_size=30))
def test_replicas_add_up_to_one(calls: list[tuple[int, bool, float, bool]]):
    told = watches(errors=ERRORS, slow=SLOW)
    alone, replicas = Tally("r", ARMS, told), [Tally("r", ARMS, told), Tally("r", ARMS, told)]
    for arm, failed, seconds, which in calls:
        for tally in alone, replicas[which]:
            tally.count(arm, seconds, EVEN, failed=failed)
    one, two = added(alone.drain()), added(*(each.drain() for each in replicas))
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_allclose(one[key], two[key])


def test_an_arm_that_is_brought_back_begins_anew_and_what_was_counted_before_is_kept_for_the_log():
    before, after = watches(errors=ERRORS), watches(errors=ERRORS, since={"new": 50.0})
    tally = Tally("r", ARMS, before)
    for _ in range(200):
        tally.count(1, 0.01, EVEN, failed=True)
    tally.watch(after)
    tally.count(1, 0.01, EVEN, failed=False)
    sums = added(tally.drain())
    assert judged(before, sums)["new", "errors.most"].broken
    assert judged(after, sums)["new", "errors.most"].numbers["n"] == 1
    assert not any(finding.broken for finding in judged(after, sums).values())


def test_two_guardrails_on_the_same_thing_count_it_once():
    told = watches(errors=ERRORS, others=ErrorGuardrail(most=0.2, times=2.0))
    tally = Tally("r", ARMS, told)
    tally.count(1, 0.01, EVEN, failed=True)
    assert {each.numbers["bad"] for each in judged(told, added(tally.drain())).values() if each.arm == "new"} == {1}


# --------------------------------------------------------------------------------------------------- judge


def run(rng: np.random.Generator, told: list[Watch], rates: tuple[float, float], *, calls: int, swing: float) -> bool:
    """Whether a guardrail of the new arm ever breaks, looked at after every 50 calls."""
    tally = Tally("r", ARMS, told)
    adds: list[Add] = []
    for block in range(calls // 50):
        busy = block / (calls // 50) < 0.5
        share, up = (0.05, 1.0) if busy else (0.5, swing)
        p = (1.0 - share, share)
        for _ in range(50):
            arm = int(rng.random() < share)
            tally.count(arm, 0.01, p, failed=rng.random() < rates[arm] * up)
        tally.put_back(adds)
        adds = tally.drain()
        if any(finding.broken for finding in judge(told[-1], added(adds), ARMS)):
            return True
    return False


def test_an_arm_at_its_limit_is_accused_no_more_often_than_promised_though_the_hours_differ():
    """Ten times the errors, for both, in the hours in which the new arm has most of its calls."""
    rng = np.random.default_rng(11)
    told = watches(errors=ErrorGuardrail(times=1.0, alpha=0.05))
    accused = sum(run(rng, told, (0.01, 0.01), calls=2_000, swing=10.0) for _ in range(100))
    assert accused <= 100 * 0.05 + 3 * math.sqrt(100 * 0.05 * 0.95)


def test_a_bad_arm_is_accused():
    rng = np.random.default_rng(12)
    told = watches(errors=ErrorGuardrail(times=2.0))
    assert all(run(rng, told, (0.005, 0.05), calls=6_000, swing=1.0) for _ in range(20))


def test_an_arm_may_have_more_errors_than_the_champion_as_long_as_they_are_few():
    told = watches(errors=ErrorGuardrail(times=2.0), few=ErrorGuardrail(times=2.0, floor=0.01))
    tally = Tally("r", ARMS, told)
    for call in range(20_000):
        tally.count(1, 0.01, EVEN, failed=call % 400 == 0)
    found = judged(told, added(tally.drain()))
    assert found["new", "errors.times"].broken
    assert found["new", "few.times"].guardrail.kept
    for _ in range(1_000):
        tally.count(1, 0.01, EVEN, failed=True)
    assert judged(told, added(tally.drain()))["new", "few.times"].broken


def test_nothing_is_known_of_arms_that_did_nothing_bad():
    known = odds_guardrail("errors", np.zeros(3), np.zeros(3), alpha=0.05)
    assert not known.broken
    assert not known.kept


def test_what_was_drawn_without_a_choice_says_nothing_about_the_two():
    """The champion was out, or a rule forced the arm: all failures are the new arm's, as they had to be."""
    row = sum(odds_row(2.0, 1.0, 0.0) for _ in range(100))
    known = odds_guardrail("errors", np.asarray(row), np.zeros(3), alpha=0.05)
    assert known.limit == pytest.approx(1.0)
    assert not known.broken


# ----------------------------------------------------------------------------------------------- outcomes


@pytest.mark.parametrize("n", [40, 400, 4_000])
def test_means_are_compared_by_the_row_of_augmented_inverse_propensity_weighting(n: int):
    rng = np.random.default_rng(5)
    K = 3
    p = rng.dirichlet(np.full(K, 3.0), n)
    arms = np.array([rng.choice(K, p=each) for each in p])
    rewards, drawn = rng.random(n), p[np.arange(n), arms]
    sums = np.zeros((K, 8))
    for arm, reward, propensity in zip(arms, rewards, drawn, strict=True):
        sums[arm] += weighed_row(reward, propensity)
    means = sums[:, 4] / sums[:, 3]
    terms = aipw_terms(arms, rewards, drawn, 1, 0, predictions=np.tile(means, (n, 1))).sum(axis=0)
    row = difference_row(sums[1], sums[0], sums[:, 0].sum())
    np.testing.assert_allclose(row[[0, 1, 2, 3, 5, 6]], terms[[0, 1, 2, 3, 5, 6]], rtol=1e-9, atol=1e-9)
    assert row[4] == pytest.approx(terms[4], rel=0.1), "the variance foreseen, though the order is not known"


def test_an_arm_that_earns_less_by_more_than_the_margin_is_accused_and_one_within_it_is_not():
    rng = np.random.default_rng(6)
    told = watches(Range(low=-1.0, high=1.0), pay=RewardGuardrail(least=-0.5, margin=0.1))
    for lack, broken in (0.4, True), (0.05, False):
        adds = []
        for _ in range(3_000):
            arm = int(rng.random() < 0.2)
            value = float(np.clip(0.3 - lack * arm + rng.normal(0.0, 0.2), -1.0, 1.0))
            rows = reported(told, ARMS, decision(arm, (0.8, 0.2)), "reward", value)
            adds += [Add("r", layout, ARMS[arm], row) for layout, row in rows.items()]
        found = judged(told, added(adds))
        assert found["new", "pay.margin"].broken is broken
        assert found["new", "pay.most"].guardrail.kept
        assert found["new", "pay.margin"].numbers["n"] == 3_000


def test_a_correction_adds_the_new_value_less_the_old_one():
    told = watches(pay=RewardGuardrail(least=0.2, margin=0.1))
    old, new = (reported(told, ARMS, decision(1), "reward", value) for value in (0.9, 0.4))
    assert old.keys() == new.keys()
    assert len(old) == 2
    for layout, row in new.items():
        change = row - old[layout]
        assert change[0] == 0.0, "it is no further decision"
        np.testing.assert_allclose(old[layout] + change, row)


@pytest.mark.parametrize(
    ("what", "more"),
    [
        ("it stood in for an arm that failed", {"failed": ("champion",)}),
        ("the champion could not be drawn", {"probabilities": (0.0, 1.0)}),
        ("nobody wrote the probabilities down", {"probabilities": None}),
        ("the route had another number of arms", {"probabilities": (0.2, 0.3, 0.5)}),
    ],
)
def test_a_decision_that_was_no_choice_between_the_two_is_not_compared(what: str, more: dict):
    told = watches(pay=RewardGuardrail(margin=0.1))
    assert reported(told, ARMS, decision(1), "reward", 0.5)
    assert not reported(told, ARMS, decision(1, **more), "reward", 0.5), what


def test_outcomes_of_decisions_from_before_the_watch_and_of_other_names_are_not_counted():
    told = watches(since={"new": 200.0}, pay=RewardGuardrail(least=0.1, margin=0.1))
    assert not reported(told, ARMS, decision(1), "reward", 0.5)
    assert reported(told, ARMS, decision(1, time=200.0), "reward", 0.5)
    assert not reported(told, ARMS, decision(1, time=200.0), "pnl", 0.5)
