"""The report of a route: each number against a slow count of the same, and against the truth where that is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from google.protobuf import json_format
from prometheus_client import CollectorRegistry, generate_latest

from bandits.anytime import aipw_terms, difference
from bandits.anytime.differences import asymptotic_radius
from protos.messages import Estimate, RouteReport
from protos.workers.scrapes import Scraped
from router.answers.best import POSTERIOR, WEIGHTED
from router.answers.estimates import mean_anywhere, mean_within
from router.answers.report import Known, report
from router.answers.service import latencies
from router.answers.shown_report import show_report
from router.answers.study import study
from router.answers.tables import Ink, number
from router.answers.value import against_champion
from router.config import EpsilonGreedyPolicy, Metric, Reward, SplitPolicy, ThompsonPolicy
from router.config.reward import Range
from router.config.safety import Canary, Shadow, Step
from router.layers.shadow import shadow_layout
from router.metrics import BUCKETS, Metrics
from router.safety.canary import State
from router.safety.switches import ROUTE, Switch
from tests.router.answers.worlds import NAME, World, lived, until
from tests.router.fakes import NOW

MEANS = {"a": 0.5, "b": 0.6, "c": 0.3}
PNL = {"pnl": Metric(unit="GBP")}


def told_of(world: World, *, alpha: float = 0.05, later: float = 0.0, **known: Any) -> RouteReport:
    return report(
        world.route,
        Known(world.store.sums(NAME), world.study(), world.clock() + later, **known),
        alpha=alpha,
    )


def of(told: RouteReport, arm: str) -> RouteReport.Arm:
    return next(each for each in told.arms if each.name == arm)


def ends(known: Estimate) -> tuple[float, float]:
    assert known.HasField("low")
    assert known.HasField("high")
    return known.low, known.high


@pytest.fixture(scope="module")
def world() -> World:
    """An epsilon-greedy route that learnt from 4000 decisions, most of them rewarded."""
    pnl = {"a": 3.0, "b": -1.0, "c": 0.0}
    return lived(
        4000,
        MEANS,
        rewarded=0.75,
        metrics_of=lambda rng, arm: {"pnl": pnl[arm] + float(rng.normal())},
        policy=EpsilonGreedyPolicy(epsilon=0.5),
        metrics={"pnl": Metric(unit="GBP"), "minutes": Metric(unit="min")},
    )


def test_counts_shares_and_means_are_those_of_the_log(world: World):
    told = told_of(world)
    for arm, mean in MEANS.items():
        rewards = [outcomes.get("reward") for decision, outcomes in world.log if decision.arm == arm]
        known = [each for each in rewards if each is not None]
        shown = of(told, arm)
        assert shown.decisions == len(rewards)
        assert shown.share == pytest.approx(len(rewards) / 4000)
        assert shown.rewards == len(known)
        assert shown.matured == pytest.approx(len(known) / len(rewards))
        assert shown.mean.value == pytest.approx(np.mean(known))
        low, high = ends(shown.mean)
        assert low < mean < high
        assert shown.state == "serving"
        assert shown.allowed


def test_the_lift_is_that_of_every_decision_scored_by_its_propensity(world: World):
    """The oracle walks over the log: AIPW scores with each arm's weighted mean for a prediction."""
    told = told_of(world)
    rows = [(decision, outcomes["reward"]) for decision, outcomes in world.log if "reward" in outcomes]
    names = list(MEANS)
    arms = np.array([names.index(decision.arm) for decision, _ in rows])
    rewards = np.array([reward for _, reward in rows])
    p = np.array([decision.propensity for decision, _ in rows])
    weighted = [float((rewards / p)[arms == k].sum() / (1 / p)[arms == k].sum()) for k in range(3)]
    for k in 1, 2:
        terms = aipw_terms(arms, rewards, p, k, 0, predictions=np.tile(weighted, (len(rows), 1)))
        oracle = difference(terms.sum(axis=0), alpha=0.05 / 2)
        shown = of(told, names[k])
        assert shown.compared == len(rows)
        assert shown.lift.value == pytest.approx(oracle.effect)
        low, high = ends(shown.lift)
        assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=0.01)
        assert low < MEANS[names[k]] - MEANS["a"] < high
        assert shown.log_e_value == pytest.approx(oracle.log_evidence, rel=0.1, abs=0.3)
    assert not of(told, "a").HasField("lift")
    assert told.champion == "a"


def test_alpha_widens_and_narrows_all_intervals(world: World):
    wide, narrow = told_of(world, alpha=0.001), told_of(world, alpha=0.2)
    for arm in "b", "c":
        for kind in "mean", "lift":
            (low, high), (near, far) = (ends(getattr(of(told, arm), kind)) for told in (wide, narrow))
            assert low < near < far < high


def test_too_little_is_not_called_a_lift():
    told = told_of(lived(60, MEANS))
    assert not of(told, "b").lift.HasField("value")
    assert not of(told, "b").HasField("log_e_value")
    assert of(told, "b").compared == 60
    assert (told.best_by, of(told, "b").HasField("best")) == ("", False)
    assert "The log tells as much as" in told.against_champion.why


def test_of_a_route_that_has_seen_nothing_nothing_is_said(world: World):
    fresh = lived(0, MEANS)
    told = told_of(fresh)
    assert [arm.decisions for arm in told.arms] == [0.0, 0.0, 0.0]
    assert not any(arm.mean.HasField("value") or arm.HasField("matured") for arm in told.arms)
    assert told.log.decisions == 0
    assert told.against_champion.why == "The log holds no rewarded decisions that could have gone there."
    assert [mismatch.alarm for mismatch in told.mismatch] == [False, False]


def test_metrics_have_totals_means_units_and_directions(world: World):
    told = told_of(world)
    for arm in MEANS:
        values = [outcomes["pnl"] for decision, outcomes in world.log if decision.arm == arm and "pnl" in outcomes]
        pnl, minutes = of(told, arm).metrics
        assert (pnl.name, pnl.unit, pnl.better) == ("pnl", "GBP", "higher")
        assert pnl.n == len(values)
        assert pnl.total == pytest.approx(sum(values))
        assert pnl.mean.value == pytest.approx(np.mean(values))
        low, high = ends(pnl.mean)
        assert low < np.mean(values) < high
        assert high - low < 1.0
        assert (minutes.n, minutes.mean.HasField("value")) == (0, False)


# ------------------------------------------------------------------------------------------------------------- means


def test_a_mean_within_a_range_ever_misses_as_seldom_as_is_promised():
    """200 sequences, looked at a hundred times each; rewards from -2 to 6 that keep to a small part of it."""
    rng, missed = np.random.default_rng(3), 0
    for _ in range(200):
        rewards = 2.0 + rng.uniform(-0.5, 0.5, 1000)
        sums = np.cumsum(np.stack([np.ones(1000), rewards, rewards**2], axis=1), axis=0)
        looks = [ends(mean_within(row, Range(low=-2.0, high=6.0), alpha=0.1)) for row in sums[9::10]]
        missed += any(not low <= 2.0 <= high for low, high in looks)
        assert looks[-1][1] - looks[-1][0] < 0.15, "the range alone would leave more than one"
    assert missed <= 20


def test_a_mean_of_anything_waits_for_a_hundred_and_then_covers():
    rng, missed = np.random.default_rng(4), 0
    for _ in range(200):
        values = rng.exponential(5.0, 1000)
        sums = np.cumsum(np.stack([np.ones(1000), values, values**2], axis=1), axis=0)
        assert not mean_anywhere(sums[98], alpha=0.1).HasField("low")
        looks = [ends(mean_anywhere(row, alpha=0.1)) for row in sums[99::20]]
        missed += any(not low <= 5.0 <= high for low, high in looks)
    assert missed <= 20


def test_sums_that_corrections_have_rounded_are_no_error():
    assert mean_anywhere(np.array([200.0, 20.0, 2.0 - 1e-9]), alpha=0.05).value == pytest.approx(0.1)


# -------------------------------------------------------------------------------------------------------------- best


def test_the_best_by_the_policys_posterior_is_counted_in_draws_from_it():
    world = lived(300, MEANS, policy=ThompsonPolicy(), floor=0.05)
    told = told_of(world)
    assert told.best_by == POSTERIOR
    rng = np.random.default_rng(1)
    draws = np.array([rng.beta(1 + row[1], 1 + row[0] - row[1], 200_000) for row in world.route.sums])
    counted = np.bincount(draws.argmax(axis=0), minlength=3) / 200_000
    assert [arm.best for arm in told.arms] == pytest.approx(counted.tolist(), abs=0.005)


def test_the_best_by_weighted_means_is_near_what_resampling_the_log_says(world: World):
    told = told_of(world)
    assert told.best_by == WEIGHTED
    rows = [(decision, outcomes["reward"]) for decision, outcomes in world.log if "reward" in outcomes]
    arms = np.array([list(MEANS).index(decision.arm) for decision, _ in rows])
    rewards, w = np.array([reward for _, reward in rows]), 1 / np.array([decision.propensity for decision, _ in rows])
    rng, won = np.random.default_rng(2), np.zeros(3)
    for _ in range(400):
        again = rng.integers(len(rows), size=len(rows))
        weights = [np.where(arms[again] == k, w[again], 0.0) for k in range(3)]
        won[int(np.argmax([(each @ rewards[again]) / each.sum() for each in weights]))] += 1
    assert [arm.best for arm in told.arms] == pytest.approx((won / 400).tolist(), abs=0.08)


# -------------------------------------------------------------------------------------------------- the log's honesty


def test_lost_rewards_of_one_arm_raise_an_alarm_and_a_warning():
    world = lived(4000, {"a": 0.5, "b": 0.5})
    rows = [
        (decision, None if decision.arm == "b" and k % 3 == 0 else outcomes["reward"])
        for k, (decision, outcomes) in enumerate(world.store.log(NAME))
    ]
    read = study(rows, world.route.settings, lambda _version: world.route.settings)
    told = report(world.route, Known(world.store.sums(NAME), read, world.clock()), alpha=0.05)
    everything, rewarded = told.mismatch
    assert (everything.of, everything.n, everything.alarm) == ("all", 4000, False)
    assert (rewarded.of, rewarded.alarm) == ("rewarded", True)
    assert rewarded.n == sum(reward is not None for _, reward in rows)
    assert rewarded.log_e_value > -math.log(0.001)
    assert any("Rewards come from some arms more than from others" in warning for warning in told.warnings)


def test_an_arm_that_is_only_slower_to_be_paid_raises_no_alarm_within_the_window():
    """Of the last thousand seconds, arm b has no reward yet; the window is as long."""
    world = lived(3000, {"a": 0.5, "b": 0.5}, seconds=1.0, reward=Reward(window_seconds=1000.0))
    now = world.clock()
    rows = [
        (decision, None if decision.arm == "b" and decision.time > now - 1000.0 else outcomes["reward"])
        for decision, outcomes in world.store.log(NAME)
    ]
    read = study(rows, world.route.settings, lambda _version: world.route.settings)
    told = report(world.route, Known(world.store.sums(NAME), read, now), alpha=0.05)
    assert not any(mismatch.alarm for mismatch in told.mismatch)
    assert of(told, "b").matured == 1.0


# ------------------------------------------------------------------------------------------------------- the champion


def test_the_gain_over_the_champion_is_that_of_a_walk_over_the_log_and_covers_the_truth():
    covered = gained = 0
    for seed in range(20):
        world = lived(2000, MEANS, seed=seed, policy=SplitPolicy(weights={"a": 0.4, "b": 0.5, "c": 0.1}))
        worth = told_of(world).against_champion
        rewards = [outcomes["reward"] for _, outcomes in world.log]
        assert worth.decisions == 2000
        assert worth.earned == pytest.approx(np.mean(rewards))
        low, high = ends(worth.champion)
        covered += low <= MEANS["a"] <= high
        assert worth.champion.value == pytest.approx(MEANS["a"], abs=0.08)
        assert worth.gain.value == pytest.approx(worth.earned - worth.champion.value)
        gains = slow_gains(world, "a")
        assert worth.gain.value == pytest.approx(np.mean(gains))
        radius = float(asymptotic_radius(2000, np.std(gains)))
        assert ends(worth.gain) == pytest.approx((np.mean(gains) - radius, np.mean(gains) + radius))
        assert 2.0 * (worth.gain.high - worth.gain.low) < high - low, "what is the same on both sides is no doubt"
        gained += worth.gain.low <= 0.4 * 0.5 + 0.5 * 0.6 + 0.1 * 0.3 - 0.5 <= worth.gain.high
        assert ends(worth.total) == pytest.approx(tuple(2000 * end for end in ends(worth.gain)))
    assert min(covered, gained) >= 18


def slow_gains(world: World, champion: str) -> list[float]:
    """What each decision earned, less its score for the champion: predicted by the means of the other four fifths."""
    rows = [(decision.arm, decision.propensity, outcomes["reward"]) for decision, outcomes in world.log]

    def predicted(fold: int) -> dict[str, float]:
        rest = [row for i, row in enumerate(rows) if i % 5 != fold]
        base = sum(reward for *_, reward in rest) / len(rest)
        mine = {arm: [reward - base for drawn, _, reward in rest if drawn == arm] for arm in MEANS}
        return {arm: base + sum(above) / (len(above) + 1) for arm, above in mine.items()}

    q = [predicted(fold) for fold in range(5)]
    return [
        reward - q[i % 5][champion] - ((reward - q[i % 5][arm]) / p if arm == champion else 0.0)
        for i, (arm, p, reward) in enumerate(rows)
    ]


def test_the_gain_over_a_champion_that_always_answered_is_nothing_for_certain():
    worth = told_of(lived(500, MEANS, apprentice=True)).against_champion
    assert ends(worth.gain) == (0.0, 0.0)
    assert worth.gain.value == 0.0


def test_intervals_of_the_gain_hold_at_all_looks_while_the_policy_learns():
    missed = 0
    for seed in range(40):
        world = lived(1500, MEANS, seed=seed, policy=ThompsonPolicy(), floor=0.1, batch=50)
        read, ever = world.study(), False
        for look in 300, 600, 1000, 1500:
            seen = until(read, look)
            told = against_champion(seen, world.route.settings, 0, alpha=0.05)
            if told.HasField("gain"):
                truth = float((seen.probabilities @ np.array(list(MEANS.values()))).mean()) - MEANS["a"]
                ever |= not told.gain.low <= truth <= told.gain.high
        missed += ever
    assert missed <= 4, "2 are promised"


def test_a_floor_that_held_narrows_what_is_said_of_the_champion():
    world = lived(3000, MEANS, policy=ThompsonPolicy(), floor=0.05)
    low, high = ends(told_of(world).against_champion.champion)
    unheard_of = replace(world.study(), floors=np.zeros(3000))
    told = report(world.route, Known(world.store.sums(NAME), unheard_of, world.clock()), alpha=0.05)
    least, most = ends(told.against_champion.champion)
    assert least < low < MEANS["a"] < high < most


def test_rewards_in_their_own_unit_are_told_in_it():
    """From -10 to 30: all that is shown moves and stretches with the range."""

    def in_unit(rng: np.random.Generator, arm: str, _x: float) -> float:
        return -10.0 + 40.0 * float(rng.random() < MEANS[arm])

    plain, scaled = lived(1500, MEANS), lived(1500, MEANS, reward=Reward(low=-10.0, high=30.0), reward_of=in_unit)
    one, other = told_of(plain), told_of(scaled)
    for arm in MEANS:
        assert of(other, arm).mean.value == pytest.approx(-10.0 + 40.0 * of(one, arm).mean.value)
        assert ends(of(other, arm).mean) == pytest.approx(tuple(-10.0 + 40.0 * x for x in ends(of(one, arm).mean)))
    assert of(other, "b").lift.value == pytest.approx(40.0 * of(one, "b").lift.value)
    assert other.against_champion.champion.value == pytest.approx(-10.0 + 40.0 * one.against_champion.champion.value)
    assert other.against_champion.gain.value == pytest.approx(40.0 * one.against_champion.gain.value)


# ----------------------------------------------------------------------------------------- what is done to the route


def test_switches_the_guard_and_a_canary_are_told(world: World):
    canary = Canary(arm="c", steps=[Step(share=0.1, calls=5), Step(share=0.5, calls=5)])
    settings = msgspec.structs.replace(world.route.settings, canary=canary)
    route = replace(world.route, settings=settings)
    switches = {
        "b": Switch("ejected", "errors", "too many of them.", NOW),
        ROUTE: Switch("frozen", "an operator", "a holiday", NOW, route.version),
    }
    state = State(NOW, step=1, entered=NOW)
    states = [("running", "canary"), ("left_alone", "canary"), ("promoted", "serving"), ("rolled_back", "rolled_back")]
    ended = {
        outcome: told_of(replace(world, route=route), canary=msgspec.structs.replace(state, outcome=outcome))
        for outcome, _ in states
    }
    assert [(outcome, of(each, "c").state) for outcome, each in ended.items()] == states
    lines = list(show_report(ended["rolled_back"], Ink(colours=False)))
    assert any(line.split()[:3] == ["c", "rolled", "back"] for line in lines)
    known = Known(world.store.sums(NAME), world.study(), world.clock(), switches, state)
    told = report(route, known, alpha=0.05)
    assert (of(told, "b").state, of(told, "b").why) == ("ejected", "errors: too many of them.")
    assert of(told, "a").state == "serving"
    assert told.frozen
    assert (told.canary.arm, told.canary.step, told.canary.steps) == ("c", 2, 2)
    assert (told.canary.share, told.canary.outcome, told.canary.since) == (0.5, "running", NOW)


def test_a_shadow_is_told_apart_from_those_that_answer(world: World):
    shadow = Shadow(tolerance=0.1)
    settings = msgspec.structs.replace(world.route.settings, shadows={"c": shadow})
    differences = [0.5, 0.1, 0.3] * 50
    row = np.array([160.0, 40.0, 150.0, sum(differences), sum(x * x for x in differences), 3.0, 2.0])
    sums = {**world.store.sums(NAME), (shadow_layout(shadow), "c"): row}
    told = report(replace(world.route, settings=settings), Known(sums, world.study(), world.clock()), alpha=0.05)
    c = of(told, "c")
    assert c.state == "shadow"
    assert (c.shadow.compared, c.shadow.different, c.shadow.failed, c.shadow.dropped) == (160, 40, 3, 2)
    assert c.shadow.difference.value == pytest.approx(0.3)
    low, high = ends(c.shadow.difference)
    assert 0.2 < low < 0.3 < high < 0.4
    assert not c.HasField("best")
    assert not c.HasField("lift")
    assert not of(told, "a").HasField("shadow")


def test_an_arm_that_fails_is_told():
    world = lived(10, {"a": 0.5, "b": 0.5})
    for _ in range(3):
        world.route.guard.failed(1, probe=False)
    told = told_of(world)
    assert [arm.state for arm in told.arms] == ["serving", "failing"]


def test_quantiles_of_latency_are_edges_above_what_was_measured(world: World):
    metrics = Metrics(CollectorRegistry())
    rng = np.random.default_rng(9)
    seconds = rng.lognormal(-5.0, 1.0, 997)
    for each in seconds:
        metrics.seconds.labels(NAME, "a").observe(each)
    for each in (0.001, 100.0):
        metrics.seconds.labels(NAME, "b").observe(each)
    metrics.seconds.labels("other", "c").observe(1.0)
    told = told_of(world, latency=latencies(metrics.seconds, NAME))
    edges = [edge for edge, _ in latencies(metrics.seconds, NAME)["a"]]
    for shown in of(told, "a").latency:
        exact = float(np.sort(seconds)[math.ceil(shown.quantile * 997) - 1])
        assert shown.at_most == min(edge for edge in edges if edge >= exact)
    assert [each.quantile for each in of(told, "a").latency] == [0.5, 0.95, 0.99]
    assert [each.HasField("at_most") for each in of(told, "b").latency] == [True, False, False]
    assert not of(told, "c").latency


def test_latency_is_that_of_all_workers_together(world: World):
    rng = np.random.default_rng(10)
    everything: list[float] = []
    texts = []
    for scale in 0.001, 0.1:  # one of them is a hundred times slower
        worker = Metrics(CollectorRegistry())
        for each in rng.exponential(scale, 500).tolist():
            worker.seconds.labels(NAME, "a").observe(each)
            everything.append(each)
        texts.append(generate_latest(worker.registry))
    told = told_of(world, latency=latencies(Scraped.of(*texts), NAME))
    for shown in of(told, "a").latency:
        exact = sorted(everything)[math.ceil(shown.quantile * 1000) - 1]
        assert shown.at_most == min(edge for edge in BUCKETS if edge >= exact)


def test_what_the_columns_mean_and_when_they_are_empty_is_said():
    lines = " ".join(show_report(told_of(lived(60, MEANS)), Ink(colours=False)))
    assert "Matured: of the decisions whose reward is due, how many have it." in lines
    assert "It is not told before 100 such decisions, and 20 of each arm." in lines
    later = told_of(lived(500, MEANS, metrics_of=lambda rng, _arm: {"pnl": float(rng.normal())}, metrics=PNL))
    lines = " ".join(show_report(later, Ink(colours=False)))
    assert "Means are of the decisions that each arm got, which differ; compare by lift." in lines
    assert "It is not told before" not in lines
    assert "Of a metric there is an interval" not in lines
    few = told_of(lived(60, MEANS, metrics_of=lambda rng, _arm: {"pnl": float(rng.normal())}, metrics=PNL))
    lines = " ".join(show_report(few, Ink(colours=False)))
    assert "Of a metric there is an interval from 100 numbers on, unless they are all the same." in lines


def test_so_many_decisions_as_a_lift_is_told_from_stand_beside_it(world: World):
    told = told_of(world)
    rewarded = sum("reward" in outcomes for _, outcomes in world.log)
    lines = list(show_report(told, Ink(colours=False)))
    start = next(i for i, line in enumerate(lines) if line.startswith("arm ") and "compared" in line)
    assert f"  {rewarded:,}  " in lines[start + 2]
    assert f"in {told.against_champion.decisions:,.0f} rewarded decisions." in " ".join(lines)
    total = told.against_champion.total
    assert f"{number(total.value, signed=True)} ({number(total.low, signed=True)} to " in " ".join(lines)


def test_a_policy_that_reads_contexts_has_no_probability_now(world: World):
    assert of(told_of(world), "a").HasField("probability")
    route = replace(world.route, reads_context=True)
    told = report(route, Known(world.store.sums(NAME), world.study(), world.clock()), alpha=0.05)
    assert not of(told, "a").HasField("probability")


def test_the_report_survives_json(world: World):
    told = told_of(world)
    text = json_format.MessageToJson(told, preserving_proto_field_name=True)
    assert json_format.Parse(text, RouteReport()) == told
    assert msgspec.json.decode(text)["champion"] == "a"
