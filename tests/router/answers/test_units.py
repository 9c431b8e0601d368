"""Units whose rewards go together: what counts decisions is too sure, and what counts units keeps its promise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bandits.anytime import difference
from protos.messages import Estimate, RouteReport
from router.answers.estimates import mean_within
from router.answers.report import Known, report
from router.answers.shown_report import show_report
from router.answers.study import Study
from router.answers.tables import Ink
from router.answers.units import TOO_SURE, by_unit, came_back, mean_by_unit, spread
from router.answers.value import against_champion
from router.config import Arm
from router.config import Route as Settings
from router.config.reward import Range, Reward
from router.learning.lift import lift_layout, lift_row
from router.safety.comparisons import weighed_row
from tests.router.answers.worlds import NAME, lived, sticky_units, until

UNIT = Range(low=0.0, high=1.0)
LOOKS = (1000, 3000, 6000)


def missed(known: Estimate, truth: float) -> bool:
    return known.HasField("low") and not known.low <= truth <= known.high


def by_decision(study: Study, *, alpha: float) -> tuple[bool, bool]:
    """Whether the intervals that count decisions miss the mean of b, 0.5, and its lift, 0."""
    mine = study.rewards[study.chosen == 1]
    mean = mean_within(np.array([len(mine), mine.sum(), (mine**2).sum()]), UNIT, alpha=alpha / 2)
    rows = {
        (lift_layout(study.arms, 0.0, 1.0), arm): np.sum(
            [weighed_row(x, 0.5) for x in study.rewards[study.chosen == k].tolist()], axis=0
        )
        for k, arm in enumerate(study.arms)
    }
    lift = difference(lift_row(rows, "b", "a", low=0.0, high=1.0), alpha=alpha)
    return missed(mean, 0.5), not lift.low <= 0.0 <= lift.high


def test_intervals_that_count_units_hold_at_all_looks_where_those_that_count_decisions_do_not():
    rng, runs, alpha = np.random.default_rng(11), 40, 0.05
    misses = np.zeros(4)
    effects: list[float] = []
    for _ in range(runs):
        world = sticky_units(rng, LOOKS[-1], 300, deviation=0.15)
        ever = np.zeros(4, dtype=np.bool_)
        for look in LOOKS:
            seen = until(world, look)
            told = by_unit(seen, 1, 0, UNIT, alpha=alpha, K=2)
            assert told.mean.HasField("low")
            assert told.lift.HasField("low")
            ever |= [*by_decision(seen, alpha=alpha), missed(told.mean, 0.5), missed(told.lift, 0.0)]
        misses += ever
        effects.append(by_unit(world, 1, 0, UNIT, alpha=alpha, K=2).design_effect)
    plain_mean, plain_lift, mean, lift = misses / runs
    assert min(plain_mean, plain_lift) > 0.25, "the plain ones fall well short of 0.95"
    assert max(mean, lift) <= 0.1, "0.05 is promised; 4 of 40 is within two standard errors of it"
    # Decisions of a unit n and their squares, with the correlation within a unit ρ: 1 + (Σn²/Σn - 1) ρ.
    rho = 0.15**2 / (0.15**2 + 0.1**2 / 3)
    assert np.mean(effects) == pytest.approx(1.0 + LOOKS[-1] / 300 * rho, rel=0.1)


def test_the_gain_over_the_champion_by_unit_holds_where_the_plain_one_does_not():
    """Of two arms as likely, b earns 0.1 more than the champion a: the gain of a decision is 0.05."""
    rng, runs, alpha = np.random.default_rng(17), 40, 0.05
    settings = Settings(arms={arm: Arm(model=arm) for arm in ("a", "b")}, sticky=True)
    misses = np.zeros(4)
    for _ in range(runs):
        world = sticky_units(rng, LOOKS[-1], 200, deviation=0.2, lift=0.1)
        ever = np.zeros(4, dtype=np.bool_)
        for look in LOOKS:
            told = against_champion(until(world, look), settings, 0, alpha=alpha)
            assert told.by_unit.gain.HasField("low")
            assert told.by_unit.gain.value == pytest.approx(told.gain.value)
            known = (told.champion, 0.5), (told.gain, 0.05), (told.by_unit.champion, 0.5), (told.by_unit.gain, 0.05)
            ever |= [missed(*each) for each in known]
        misses += ever
    plain_value, plain_gain, value, gain = misses / runs
    assert min(plain_value, plain_gain) > 0.2, "the plain ones fall well short of 0.95"
    assert max(value, gain) <= 0.1, "0.05 is promised; 4 of 40 is within two standard errors of it"


def test_the_gain_by_unit_is_that_of_a_walk_over_the_units():
    """Drawn evenly, with predictions of nothing: what a decision earned less R / p where the champion was drawn."""
    settings = Settings(arms={arm: Arm(model=arm) for arm in ("a", "b")}, sticky=True)
    world = sticky_units(np.random.default_rng(9), 5000, 400, deviation=0.1, lift=0.2)
    told = against_champion(world, settings, 0, alpha=0.05).by_unit
    assert told.units == 400
    assert told.gain.low < 0.1 < told.gain.high
    assert (told.total.low, told.total.value) == pytest.approx((5000 * told.gain.low, 5000 * told.gain.value))
    by_unit: dict[int, list[float]] = {}
    for unit, arm, reward in zip(world.units.tolist(), world.chosen.tolist(), world.rewards.tolist(), strict=True):
        by_unit.setdefault(unit, []).append(reward - (reward / 0.5 if arm == 0 else 0.0))
    walked = sum(map(sum, by_unit.values())) / 5000
    assert told.gain.value == pytest.approx(walked, abs=0.05), "which is as unbiased, and noisier"


def test_a_true_lift_is_still_found():
    told = by_unit(
        sticky_units(np.random.default_rng(3), 6000, 600, deviation=0.15, lift=0.1), 1, 0, UNIT, alpha=0.05, K=2
    )
    assert 0.0 < told.lift.low < 0.1 < told.lift.high
    assert told.log_e_value > math.log(20.0)


def test_the_variance_is_that_of_the_mean_over_many_worlds():
    rng = np.random.default_rng(5)
    means, variances = [], []
    for _ in range(300):
        world = sticky_units(rng, 1000, 100, deviation=0.2)
        mine = world.chosen == 1
        mean = world.rewards[mine].mean()
        _, variance = spread(world.units[mine], world.rewards[mine] - mean)
        means.append(mean)
        variances.append(variance / mine.sum() ** 2)
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.2)


def test_units_that_come_once_have_no_design_effect_and_the_interval_of_decisions():
    rng = np.random.default_rng(1)
    values = rng.random(2000)
    told, effect = mean_by_unit(np.arange(2000), values, alpha=0.05)
    assert effect == pytest.approx(1.0)
    row = np.array([2000.0, values.sum(), values @ values])
    plain = mean_within(row, UNIT, alpha=0.1)  # of which half goes to the asymptotic interval
    assert (told.low, told.high) == pytest.approx((plain.low, plain.high), rel=1e-3)


def test_units_that_differ_less_than_chance_narrow_nothing():
    """Each unit has one reward of 0 and one of 1: its mean is always one half."""
    units, values = np.repeat(np.arange(0, 400, 2), 2), np.tile([0.0, 1.0], 200)
    told, effect = mean_by_unit(units, values, alpha=0.05)
    assert effect == pytest.approx(0.0)
    assert told.high - told.low > 0.1


@pytest.mark.parametrize(("n", "units"), [(0, 1), (1, 1), (500, 1), (500, 99)])
def test_few_units_have_no_interval(n: int, units: int):
    rng = np.random.default_rng(2)
    told, _ = mean_by_unit(np.arange(n) % units, rng.random(n), alpha=0.05)
    assert not told.HasField("low")
    assert told.HasField("value") == (n > 0)


def test_an_arm_that_nobody_was_sent_to_has_no_lift():
    world = sticky_units(np.random.default_rng(4), 500, 200, deviation=0.1)
    told = by_unit(replace(world, chosen=np.zeros(500, dtype=np.intp)), 1, 0, UNIT, alpha=0.05, K=2)
    assert (told.units, told.decisions) == (0, 0)
    assert not told.mean.HasField("value")
    assert not told.lift.HasField("value")


# --------------------------------------------------------------------------------------------------------- the report


def told_of(units: int, sticky: bool) -> RouteReport:
    world = lived(2000, {"a": 0.5, "b": 0.6}, units=units, sticky=sticky, reward=Reward(low=-1.0, high=3.0))
    return report(world.route, Known(world.store.sums(NAME), world.study(), world.clock()), alpha=0.05)


def test_a_sticky_route_whose_units_came_back_is_told_by_unit_with_a_warning():
    told = told_of(400, sticky=True)
    assert (told.units.units, told.units.decisions, told.units.most) == (400, 2000, 5)
    assert list(told.warnings) == [TOO_SURE]
    a, b = told.arms
    assert a.by_unit.units + b.by_unit.units == 400
    assert a.by_unit.decisions + b.by_unit.decisions == 2000
    for arm in a, b:
        assert arm.by_unit.mean.value == pytest.approx(arm.mean.value), "the log is whole"
        assert arm.by_unit.design_effect == pytest.approx(1.0, abs=0.35), "rewards of these units do not go together"
        assert arm.by_unit.mean.low < arm.mean.value < arm.by_unit.mean.high
    assert b.by_unit.lift.value == pytest.approx(b.lift.value, rel=1e-6)
    assert not a.by_unit.HasField("lift")
    worth = told.against_champion
    assert worth.by_unit.units == 400
    assert worth.by_unit.gain.value == pytest.approx(worth.gain.value)
    lines = list(show_report(told, Ink(colours=False)))
    assert " ".join(lines[2:4]) == TOO_SURE, "where nobody can miss it"
    assert any("units  rewards a unit  design effect" in line for line in lines)
    assert any("400 units drew 2,000 times, one of them 5 times" in line for line in lines)
    assert any(line.startswith("By unit: ") and "from 400 units, design effect" in line for line in lines)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(("units", "sticky"), [(400, False), (0, True), (2000, True)])
def test_nothing_is_said_of_units_where_none_counts_twice(units: int, sticky: bool):
    told = told_of(units, sticky=sticky)
    assert not told.HasField("units")
    assert not any(arm.HasField("by_unit") for arm in (*told.arms, told.against_champion))
    assert not told.warnings


def test_units_that_nobody_named_are_each_their_own():
    world = lived(300, {"a": 0.5, "b": 0.5}, sticky=True)
    assert came_back(world.study()) is None
