"""What arms cost: everything that is told net of it, against a walk over the log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bandits.anytime.differences import asymptotic_radius
from protos.messages import Estimate, RouteReport
from router.answers.best import BY_UNIT, OVER_CONTEXTS, POSTERIOR, WEIGHTED
from router.answers.candidate import with_policy
from router.answers.estimates import less
from router.answers.evaluate import evaluation
from router.answers.report import Known, report
from router.answers.shown import show_evaluation
from router.answers.shown_report import show_report
from router.answers.tables import Ink
from router.config import Arm, EpsilonGreedyPolicy, Reward, SplitPolicy, ThompsonPolicy
from router.config.context import Feature
from router.config.policies import LinearThompsonPolicy
from tests.router.answers.worlds import NAME, World, lived

MEANS = {"a": 0.5, "b": 0.6}
COSTS = {"a": 0.05, "b": 0.3}
ARMS = {name: Arm(model=name, cost=cost) for name, cost in COSTS.items()}


def told_of(world: World) -> RouteReport:
    return report(world.route, Known(world.store.sums(NAME), world.study(), world.clock()), alpha=0.05)


def ends(known: Estimate) -> tuple[float, float]:
    assert known.HasField("low")
    assert known.HasField("high")
    return known.low, known.high


def moved(known: Estimate, by: float) -> tuple[float, float, float]:
    low, high = ends(known)
    return low + by, known.value + by, high + by


@pytest.fixture(scope="module")
def world() -> World:
    """Arm b earns 0.1 more than a, and costs 0.25 more."""
    return lived(3000, MEANS, arms=ARMS, policy=SplitPolicy())


def test_the_net_lift_is_the_lift_less_what_the_arm_costs_more(world: World):
    b = told_of(world).arms[1]
    assert (b.net_lift.low, b.net_lift.value, b.net_lift.high) == pytest.approx(moved(b.lift, -0.25))
    assert b.lift.low > 0.0 > b.net_lift.high, "the better arm is not worth its cost"


def test_what_the_experiment_made_is_gain_less_cost(world: World):
    told = told_of(world)
    worth = told.against_champion
    drawn = [decision.arm for decision, _ in world.log]
    cost = sum(COSTS[arm] - COSTS["a"] for arm in drawn)
    assert worth.cost == pytest.approx(cost)
    assert worth.on_investment == pytest.approx((worth.total.value - cost) / cost)
    assert worth.on_investment < 0.0, "a gain that cost more than it was is a loss"
    assert worth.net.value == pytest.approx(worth.total.value - cost)
    low, high = ends(worth.net)
    assert low < 3000 * (0.5 * 0.1 - 0.5 * 0.25) < high
    assert high < 0.0 < worth.total.value
    assert told.cost_per_decision == pytest.approx(np.mean([COSTS[arm] for arm in drawn]))
    assert [arm.cost for arm in told.arms] == list(COSTS.values())


def test_the_interval_of_what_was_made_is_that_of_each_decisions_worth(world: World):
    """Each decision's reward and cost, less the champion's score and cost: the spread of that is what counts."""
    worth = told_of(world).against_champion
    rows = [(decision.arm, outcomes["reward"]) for decision, outcomes in world.log]
    mean = {arm: np.mean([reward for drawn, reward in rows if drawn == arm]) for arm in MEANS}
    made = [
        reward - COSTS[arm] - (mean["a"] + (reward - mean["a"]) / 0.5 * (arm == "a") - COSTS["a"])
        for arm, reward in rows
    ]
    radius = 3000 * float(asymptotic_radius(3000, np.std(made)))
    low, high = ends(worth.net)
    assert (high - low) / 2 == pytest.approx(radius, rel=0.01)


POLICIES: list[tuple[str, dict[str, Any]]] = [
    (POSTERIOR, {"policy": ThompsonPolicy(), "floor": 0.1}),
    (WEIGHTED, {"policy": EpsilonGreedyPolicy(epsilon=0.4)}),
    (BY_UNIT, {"policy": SplitPolicy(), "units": 600, "sticky": True}),
    (
        OVER_CONTEXTS,
        {
            "policy": LinearThompsonPolicy(),
            "floor": 0.1,
            "context": {"x": Feature(tensor="x", column=0, mean=0.5, scale=0.3)},
        },
    ),
]


@pytest.mark.parametrize(("by", "settings"), POLICIES)
def test_the_best_arm_is_the_best_net_of_cost_whatever_it_is_told_from(by: str, settings: dict[str, Any]):
    """Gross b is the best, net a; with rewards from -2 to 2, so that costs have to be scaled as they are."""
    given: dict[str, Any] = {
        "reward": Reward(low=-2.0, high=2.0),
        "reward_of": lambda rng, arm, _x: 2.0 * float(rng.random() < MEANS[arm]) - 1.0,
    }
    gross = told_of(lived(2500, MEANS, **given, **settings))
    net = told_of(lived(2500, MEANS, arms=ARMS, **given, **settings))
    assert (gross.best_by, net.best_by) == (by, by)
    assert gross.arms[1].best > 0.95
    dear = {"a": Arm(model="a"), "b": Arm(model="b", cost=0.4)}
    assert told_of(lived(2500, MEANS, arms=dear, **given, **settings)).arms[0].best > 0.95
    assert not gross.arms[1].HasField("net_lift")


def test_the_chance_to_be_best_is_that_of_resampled_worths():
    """b costs as much more as it earns more, so that neither is sure to be the best."""
    arms = {"a": Arm(model="a"), "b": Arm(model="b", cost=0.12)}
    world = lived(3000, MEANS, arms=arms, policy=EpsilonGreedyPolicy(epsilon=0.6))
    told = told_of(world)
    drawn = np.array([decision.arm == "b" for decision, _ in world.log])
    worths = np.array([outcomes["reward"] for _, outcomes in world.log]) - 0.12 * drawn
    w = 1.0 / np.array([decision.propensity for decision, _ in world.log])
    rng, won = np.random.default_rng(5), 0
    for _ in range(400):
        again = rng.integers(3000, size=3000)
        mine, weights, values = drawn[again], w[again], worths[again]
        won += np.average(values[mine], weights=weights[mine]) > np.average(values[~mine], weights=weights[~mine])
    assert 0.02 < told.arms[1].best < 0.98
    assert told.arms[1].best == pytest.approx(won / 400, abs=0.08)


def test_units_that_come_back_are_told_net_too():
    world = lived(2000, MEANS, arms=ARMS, units=400, sticky=True)
    told = told_of(world)
    by_unit, worth = told.arms[1].by_unit, told.against_champion
    lift = by_unit.net_lift
    assert (lift.low, lift.value, lift.high) == pytest.approx(moved(by_unit.lift, -0.25))
    assert worth.by_unit.net.value == pytest.approx(worth.net.value)
    assert worth.by_unit.net.low < worth.net.value < worth.by_unit.net.high
    assert worth.by_unit.total.value == pytest.approx(worth.total.value)


def test_an_evaluation_tells_the_lift_net_of_cost(world: World):
    settings = with_policy(world.route.settings, "{kind: split, weights: {a: 0.2, b: 0.8}}")
    told = evaluation(world.study(), NAME, settings, alpha=0.05)
    share = np.mean([decision.arm == "b" for decision, _ in world.log])
    assert told.cost == pytest.approx(0.2 * 0.05 + 0.8 * 0.3)
    assert told.had_cost == pytest.approx((1 - share) * 0.05 + share * 0.3)
    assert told.net_lift.value == pytest.approx(told.lift.value - (told.cost - told.had_cost))
    low, high = ends(told.net_lift)
    assert low < 0.3 * 0.1 - 0.3 * 0.25 < high < 0.0 < told.lift.value
    told_by_unit = evaluation(lived(2000, MEANS, arms=ARMS, units=400, sticky=True).study(), NAME, settings, alpha=0.05)
    known = told_by_unit.by_unit
    assert known.net_lift.value == pytest.approx(known.lift.value - (told_by_unit.cost - told_by_unit.had_cost))
    shown = "\n".join(show_evaluation(told, Ink(colours=False)))
    assert f"{told.net_lift.value:+.4g}" in shown
    assert max(map(len, shown.split("\n"))) <= 120


def test_no_table_mixes_what_is_net_with_what_is_not(world: World):
    told = told_of(world)
    lines = list(show_report(told, Ink(colours=False)))
    (gross,) = [line for line in lines if line.startswith("arm ") and "mean reward" in line]
    (net,) = [line for line in lines if line.startswith("net of cost: arm")]
    assert "P(best)" not in gross
    assert "P(best)" in net
    worth = told.against_champion
    (made,) = [line for line in lines if line.startswith("Net of cost: ")]
    for number in worth.net.value, worth.net.low, worth.net.high, worth.total.value, worth.cost:
        assert f"{number:+.4g}" in made
    assert max(map(len, lines)) <= 120


def test_where_no_arm_declares_a_cost_nothing_is_said_of_it():
    told = told_of(lived(300, MEANS))
    assert not told.against_champion.HasField("net")
    assert not told.HasField("cost_per_decision")
    assert not any("cost" in line.lower() for line in show_report(told, Ink(colours=False)))


def test_what_is_not_known_stays_so_when_it_is_moved():
    assert not less(Estimate(), 1.0).ListFields()
    assert less(Estimate(value=0.0, low=-1.0), 0.5) == Estimate(value=-0.5, low=-1.5)
