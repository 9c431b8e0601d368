"""Which arm is best, where no posterior and no plain mean can say it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bandits import Thompson
from protos.messages import RouteReport
from router.answers.best import BY_UNIT, OVER_CONTEXTS, OVER_CONTEXTS_BY_UNIT, POSTERIOR, best_by_log, best_by_sums
from router.answers.report import Known, report
from router.call import Vector
from router.config import Arm
from router.config import Route as Settings
from router.config.context import Feature
from router.config.policies import LinearThompsonPolicy
from router.config.rules import Rule
from tests.router.answers.worlds import NAME, World, lived, sticky_units

CONTEXT = {"x": Feature(tensor="x", column=0, mean=0.5, scale=0.3)}
PAYS = {"a": lambda _x: 0.5, "b": lambda x: 0.7 if x > 0.5 else 0.1, "c": lambda x: 0.2 + 0.2 * x}


def contextual(n: int = 4000, *, seed: int = 7, **settings: Any) -> World:
    """Arm b earns more than a where it is easy, and is sent there: by plain means it seems the better one for all."""

    def reward_of(rng: np.random.Generator, arm: str, x: float) -> float:
        return float(rng.random() < PAYS[arm](x))

    given: dict[str, Any] = {"context": CONTEXT, "policy": LinearThompsonPolicy(), "floor": 0.1, **settings}
    return lived(n, dict.fromkeys("abc", 0.5), seed=seed, reward_of=reward_of, **given)


def told_of(world: World) -> RouteReport:
    return report(world.route, Known(world.store.sums(NAME), world.study(), world.clock()), alpha=0.05)


def best(told: RouteReport) -> dict[str, float]:
    assert all(arm.HasField("best") for arm in told.arms), told.best_why
    return {arm.name: arm.best for arm in told.arms}


def test_over_contexts_the_best_is_not_misled_by_who_was_sent_where():
    told = told_of(contextual())
    a, b = told.arms[0], told.arms[1]
    assert b.mean.value > a.mean.value
    assert (told.best_by, told.best_why) == (OVER_CONTEXTS, "")
    assert best(told)["a"] > 0.95
    assert sum(best(told).values()) == pytest.approx(1.0)


def test_a_contextual_route_whose_rules_often_leave_arms_out_is_judged_where_all_were_allowed():
    """Decisions that could have drawn any arm are few there too, and the sums know of no others."""
    told = told_of(contextual(rules=(Rule(name="easy", when="x > 0.5", never=("a",)),)))
    assert told.best_by == OVER_CONTEXTS
    assert best(told)["a"] > 0.95, "where x is below one half, b earns 0.1"


def test_how_sure_it_is_agrees_with_how_often_it_is_right():
    """Two arms that are alike over all contexts: each seems the surely best one in a tenth of the worlds, not more."""

    def reward_of(rng: np.random.Generator, arm: str, x: float) -> float:
        return float(rng.random() < (x if arm == "a" else 1.0 - x))

    sure = []
    for seed in range(60):
        world = lived(
            600,
            {"a": 0.5, "b": 0.5},
            seed=seed,
            reward_of=reward_of,
            context=CONTEXT,
            policy=LinearThompsonPolicy(),
            floor=0.15,
        )
        sure.append(max(best(told_of(world)).values()) > 0.95)
    assert sum(sure) <= 12, "6 are expected"


def test_where_the_log_cannot_tell_the_report_says_why_and_of_which_arm():
    told = told_of(contextual(floor=0.0))
    assert told.best_by == ""
    assert not any(arm.HasField("best") for arm in told.arms)
    assert told.best_why.startswith("What ")
    assert (
        "would have earned in all contexts the log cannot tell; with a floor it could. The weights average"
        in told.best_why
    )


def test_a_route_with_a_floor_is_not_told_that_one_would_help():
    """A floor of 0.002 keeps c at so few of these decisions that they tell nothing."""
    told = told_of(contextual(2000, floor=0.002))
    assert told.best_by == ""
    assert "cannot tell; with a higher floor, or more decisions, it could. " in told.best_why


def test_too_few_decisions_are_counted_out():
    told = told_of(contextual(60))
    needs = "It takes 100 rewarded decisions at which every arm was allowed, and 20 of each arm; so far: 60, "
    assert told.best_why.startswith(needs)
    world = lived(60, {"a": 0.5, "b": 0.5})
    fewest = min("ab", key=[decision.arm for decision, _ in world.log].count)
    n = [decision.arm for decision, _ in world.log].count(fewest)
    needs = "It takes 100 decisions that could have drawn any arm, and 20 of each arm; so far: 60"
    assert told_of(world).best_why == f"{needs}, {n} of them of {fewest}."


def test_units_that_come_back_make_a_belief_no_surer_than_units_can():
    """No arm is better, but units differ, and each comes again: counting decisions is too sure."""
    rng, policy, both = np.random.default_rng(6), Thompson(), np.ones(2, dtype=np.bool_)
    settings = Settings(arms={arm: Arm(model=arm) for arm in "ab"}, sticky=True)
    posterior: list[bool] = []
    by_unit: list[bool] = []
    for _ in range(60):
        read = sticky_units(rng, 6000, 150, deviation=0.2)
        learnt = np.array([_sums(read.rewards[read.chosen == k]) for k in range(2)])
        alone = best_by_sums(policy, learnt, {}, settings, both)
        together = best_by_log(policy, read, settings, both, together=True)
        assert together is not None
        for told, by, surest in (alone, POSTERIOR, posterior), (together, BY_UNIT, by_unit):
            assert told.by == by
            assert told.p is not None
            surest.append(bool(told.p.max() > 0.95))
    assert sum(posterior) >= 20, "6 would be right"
    assert sum(by_unit) <= 12


def test_over_contexts_too_units_are_what_is_counted():
    told = told_of(contextual(2000, units=400, sticky=True))
    assert told.best_by == OVER_CONTEXTS_BY_UNIT
    assert sum(best(told).values()) == pytest.approx(1.0)
    few = told_of(contextual(2000, units=60, sticky=True))
    assert few.best_why.startswith("It takes 100 rewarded units that could have been sent to any arm, ")
    assert "so far: 60, " in few.best_why


def _sums(rewards: Vector) -> Vector:
    return np.array([len(rewards), rewards.sum(), rewards @ rewards])
