"""Off-policy evaluation: the estimators against their definitions and the truth, and the log that cannot answer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import EpsilonGreedy, Split, Thompson
from bandits.anytime.off_policy import doubly_robust_sequence, value_interval
from bandits.log import Log, target_of
from bandits.offline import LIMITS, evaluate
from bandits.predictions import ridge_predictions, running_means

quick = settings(max_examples=40, deadline=None)


def world(seed, n=2000, sharpness=2.0, K=4):
    """Contexts, a logging policy that goes with them and a target that goes against it: (log, target, q, value)."""
    rng = np.random.default_rng(seed)
    theta = np.random.default_rng(99).normal(size=(K, 2))
    contexts = rng.normal(size=(n, 2))
    mean = 1 / (1 + np.exp(-contexts @ theta.T))
    p, target = softmax(-sharpness * mean), softmax(2 * sharpness * mean)
    arms = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    rows = np.arange(n)
    rewards = (rng.random(n) < mean[rows, arms]).astype(float)
    return Log(arms, rewards, p[rows, arms], K=K, contexts=contexts), target, mean, (target * mean).sum(axis=1).mean()


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def uniform_log(n=1000, K=4, seed=0, **more):
    rng = np.random.default_rng(seed)
    return Log(rng.integers(K, size=n), rng.integers(2, size=n) * 1.0, np.full(n, 1 / K), K=K, **more)


# The estimators


@quick
@given(seed=st.integers(0, 10_000), n=st.integers(2, 30), limit=st.sampled_from([0.5, 2.0, 10.0]))
def test_each_estimator_is_what_its_paper_says(seed, n, limit):
    """Row by row in plain Python."""
    log, target, q, _ = world(seed, n)
    ips, clipped, weights, dm, dr, switch, shrunk = [], [], [], [], [], [], []
    for i, (arm, reward, propensity) in enumerate(zip(log.arms, log.rewards, log.propensities, strict=True)):
        w = target[i, arm] / propensity
        known = sum(target[i, k] * q[i, k] for k in range(4))
        weights.append(w)
        ips.append(w * reward)
        clipped.append(min(w, limit) * reward)
        dm.append(known)
        dr.append(known + w * (reward - q[i, arm]))
        switch.append(known + (w if w <= limit else 0.0) * (reward - q[i, arm]))
        shrunk.append(known + limit * w / (w * w + limit) * (reward - q[i, arm]))
    found = evaluate(log, target, predictions=q, clip=limit, tau=limit, lam=limit)
    expected = {"ips": ips, "clipped_ips": clipped, "dm": dm, "dr": dr, "switch_dr": switch, "dr_os": shrunk}
    for name, scores in expected.items():
        estimate = found.estimates[name]
        assert estimate.value == pytest.approx(np.mean(scores), abs=1e-12)
        assert estimate.error == pytest.approx(np.std(scores, ddof=1) / math.sqrt(n), abs=1e-12)
    snips = sum(ips) / sum(weights)
    assert found.snips.value == pytest.approx(snips)
    spread = sum((w * (r - snips)) ** 2 for w, r in zip(weights, log.rewards, strict=True))
    assert found.snips.error == pytest.approx(math.sqrt(spread) / sum(weights))
    assert found.overlap.effective_rows == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights))
    assert found.overlap.mean_weight == pytest.approx(np.mean(weights))
    assert found.overlap.largest_weight == pytest.approx(max(weights))
    assert (found.low, found.high) == value_interval(np.array(weights), log.rewards)


def test_of_the_policy_that_made_the_log_the_value_is_the_mean_reward():
    log = uniform_log()
    found = evaluate(log, np.full((1000, 4), 0.25))
    for name in ("ips", "snips", "clipped_ips"):
        assert found.estimates[name].value == pytest.approx(log.rewards.mean())
    assert found.overlap.effective_rows == pytest.approx(1000)
    assert (found.overlap.mean_weight, found.overlap.coverage) == pytest.approx((1.0, 1.0))
    assert found.answerable
    assert (found.why, found.overlap.warnings) == ("", ())


def test_over_many_logs_the_estimates_are_true_and_their_errors_honest():
    """200 logs: the mean is off by chance alone, and the standard error is the spread that is seen."""
    seen: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    inside = 0
    for seed in range(200):
        log, target, _, value = world(seed, 1000)
        found = evaluate(log, target)
        inside += found.low <= value <= found.high
        for name, estimate in found.estimates.items():
            seen.setdefault(name, []).append(estimate.value - value)
            errors.setdefault(name, []).append(estimate.error)
    for name in ("ips", "snips", "dr"):
        assert abs(np.mean(seen[name])) < 4 * np.std(seen[name]) / math.sqrt(200), name
        assert np.mean(errors[name]) == pytest.approx(np.std(seen[name]), rel=0.2), name
    rms = {name: float(np.sqrt(np.mean(np.square(off)))) for name, off in seen.items()}
    assert rms["dr"] < 0.8 * rms["ips"]
    assert rms["switch_dr"] < 1.15 * rms["dr"]
    assert rms["dr_os"] < 1.15 * rms["dr"]
    assert inside >= 190


def test_limits_lead_from_the_direct_method_to_the_doubly_robust_one():
    log, target, q, _ = world(1, 500)
    free = evaluate(log, target, predictions=q, clip=math.inf, tau=math.inf, lam=math.inf)
    assert free.switch_dr == free.dr_os == free.dr
    assert free.clipped_ips == free.ips
    tight = evaluate(log, target, predictions=q, tau=1e-9, lam=1e-12)
    assert tight.switch_dr.value == pytest.approx(tight.dm.value)
    assert tight.dr_os.value == pytest.approx(tight.dm.value)


def test_limits_help_where_weights_are_heavy_and_predictions_good():
    off: dict[str, list[float]] = {name: [] for name in ("dr", "switch_dr", "dr_os")}
    limits = set()
    for seed in range(60):
        log, target, q, value = world(seed, 1000, sharpness=8.0)
        found = evaluate(log, target, predictions=q)
        limits.add(found.switch_dr.limit)
        for name, values in off.items():
            values.append((found.estimates[name].value - value) ** 2)
    assert np.mean(off["switch_dr"]) < 0.8 * np.mean(off["dr"])
    assert np.mean(off["dr_os"]) < 0.8 * np.mean(off["dr"])
    assert limits - {None} <= set(LIMITS)
    assert len(limits) > 2


def test_no_limit_is_taken_where_it_would_bias():
    """Predictions of 0 are far off, so to leave rows out costs more than their noise."""
    log, target, _, _ = world(3, 5000, sharpness=3.0)
    found = evaluate(log, target, predictions=np.zeros_like(target), tau=(2.0, math.inf), lam=(0.01, math.inf))
    assert found.switch_dr.limit is None
    assert found.dr_os.limit is None


def test_a_floor_makes_the_interval_tighter_where_weights_are_heavy():
    log, target, _, value = world(4, 5000, sharpness=3.0)
    plain, known = evaluate(log, target), evaluate(log, target, floor=float(log.propensities.min()))
    assert plain.low < known.low < value < known.high < plain.high


@pytest.mark.parametrize(("n", "sharpness", "better"), [(200, 0.0, "plain"), (5000, 3.0, "robust")])
def test_with_a_floor_two_intervals_share_alpha_and_the_narrower_ends_are_taken(n, sharpness, better):
    log, target, _, _ = world(4, n, sharpness=sharpness)
    floor = 0.1 * float(log.propensities.min()) if better == "plain" else float(log.propensities.min())
    found = evaluate(log, target, floor=floor)
    plain = value_interval(log.weights(target), log.rewards, alpha=0.025)
    lows, highs = doubly_robust_sequence(log, target, running_means(log), k=1 / floor, alpha=0.025)
    robust = lows[-1], highs[-1]
    assert (found.low, found.high) == (max(plain[0], robust[0]), min(plain[1], robust[1]))
    assert (found.low, found.high) == (plain if better == "plain" else robust)


# The log that cannot answer


def test_arms_that_were_never_played_are_named():
    log = uniform_log(K=5)
    log = Log(log.arms % 4, log.rewards, np.full(1000, 0.25), K=5)
    found = evaluate(log, np.tile([0.2, 0.2, 0.2, 0.1, 0.3], (1000, 1)))
    assert not found.answerable
    assert "30.0% go to arms never played: 4." in found.why
    assert found.overlap.coverage == pytest.approx(0.7)


def test_contexts_in_which_an_arm_could_not_be_chosen_are_noticed():
    """Both arms were played often, but each only where a rule sent it."""
    contexts = np.tile([[0.0], [1.0]], (500, 1))
    log = Log(np.tile([0, 1], 500), np.tile([0.0, 1.0], 500), np.ones(1000), K=2, contexts=contexts)
    found = evaluate(log, np.tile([0.5, 0.5], (1000, 1)))
    assert "average 0.5 instead of 1" in found.why


@pytest.mark.parametrize("factor", [0.5, 0.87, 1.15, 2.0])
def test_wrong_propensities_are_noticed(factor):
    log = uniform_log()
    found = evaluate(replace(log, propensities=log.propensities * factor), np.tile([0.4, 0.3, 0.2, 0.1], (1000, 1)))
    assert "propensities are wrong" in found.why


def test_chance_alone_is_no_reason():
    target = np.tile([0.7, 0.1, 0.1, 0.1], (400, 1))
    assert sum(not evaluate(uniform_log(400, seed=seed), target).answerable for seed in range(100)) <= 1


def test_units_that_were_drawn_for_once_and_came_back_are_no_reason_either():
    """A hundred draws, of which each happened forty times over, may be off by as much as a hundred draws are."""
    rng = np.random.default_rng(8)
    refused = {"apart": 0, "together": 0}
    for _ in range(100):
        drawn = rng.integers(2, size=100)
        units = np.tile(np.arange(100), 40)
        known = Log(drawn[units], rng.random(4000), np.full(4000, 0.5), 2)
        target = np.tile([0.8, 0.2], (4000, 1))
        refused["apart"] += not evaluate(known, target).answerable
        refused["together"] += not evaluate(replace(known, units=units), target).answerable
    assert refused["apart"] > 30
    assert refused["together"] <= 3


def seldom_log(seed, n=2500, units=None):
    """In a tenth of the rows the log hardly draws the arm that the target is for: (log, target)."""
    rng = np.random.default_rng(seed)
    away = np.arange(n) % 10 == 0
    p = np.where(away[:, np.newaxis], [0.998, 0.002], [0.02, 0.98])
    arms = (rng.random(n) < p[:, 1]).astype(int)
    log = Log(arms, rng.random(n), p[np.arange(n), arms], 2, units=units, drawn_from=p)
    return log, np.tile([0.04, 0.96], (n, 1))


def blamed(log, target):
    found = evaluate(log, target)
    return any("propensities are wrong" in sentence for sentence in (found.why, *found.overlap.warnings))


def test_heavy_weights_that_were_not_drawn_are_chance_where_all_propensities_are_known():
    """Of 250 rows whose weight could be 480, half the logs hold none: they average 0.9, and look sure of it."""
    short = [seldom_log(seed) for seed in range(60)]
    assert sum(blamed(replace(log, drawn_from=None), target) for log, target in short) > 20
    assert sum(blamed(*each) for each in short) <= 1
    long = [seldom_log(seed, n=20_000) for seed in range(40)]
    assert sum(blamed(*each) for each in long) <= 1
    assert all(blamed(replace(log, propensities=log.propensities / 1.3), target) for log, target in long)
    found = [evaluate(*each).overlap for each in long]
    errors, averages = [each.mean_weight_error for each in found], [each.mean_weight for each in found]
    assert np.mean(errors) == pytest.approx(np.std(averages), rel=0.3)


def test_what_was_too_improbable_for_a_short_log_is_no_answer_and_no_fault_of_the_propensities():
    found = [evaluate(*seldom_log(seed)) for seed in range(30)]
    short = [each for each in found if each.overlap.mean_weight < 0.92]
    assert short
    for each in short:
        assert "too improbable for a log of this length." in each.why
        assert "propensities are wrong" not in each.why


def test_the_error_to_be_expected_is_that_of_the_propensities_row_by_row():
    log, target = seldom_log(0)
    expected = sum(
        sum(t * t / p for t, p in zip(*row, strict=True)) - 1 for row in zip(target, log.drawn_from, strict=True)
    )
    assert evaluate(log, target).overlap.mean_weight_error == pytest.approx(math.sqrt(expected) / 2500)
    units = np.arange(2500) % 500
    together = sum(
        sum(math.sqrt(sum(target[i] ** 2 / log.drawn_from[i]) - 1) for i in np.flatnonzero(units == unit)) ** 2
        for unit in range(500)
    )
    known = evaluate(replace(log, units=units), target).overlap
    assert known.mean_weight_error == pytest.approx(math.sqrt(together) / 2500)


def test_a_row_that_was_all_but_impossible_hides_nothing():
    """One weight of a million would excuse all others; the log could never have held it."""
    log = uniform_log(drawn_from=np.full((1000, 4), 0.25))
    p = log.drawn_from.copy()
    p[17] = [1e-12 if k != log.arms[17] else 1.0 for k in range(4)]
    known = replace(log, propensities=log.propensities / 1.04, drawn_from=p)
    assert evaluate(known, np.full((1000, 4), 0.25)).overlap.mean_weight_error < 0.01
    assert blamed(known, np.full((1000, 4), 0.25))


def test_slightly_wrong_propensities_are_worth_a_warning():
    log = uniform_log()
    found = evaluate(replace(log, propensities=log.propensities / 1.04), np.full((1000, 4), 0.25))
    assert found.answerable
    assert "average 1.04 instead of 1" in found.overlap.warnings[0]


def test_too_few_effective_rows_are_no_answer():
    rng = np.random.default_rng(0)
    arms = (rng.random(5000) < 0.01).astype(int)
    log = Log(arms, arms * 1.0, np.where(arms == 1, 0.01, 0.99), K=2)
    found = evaluate(log, np.tile([0.0, 1.0], (5000, 1)))
    assert found.why.startswith("The log tells as much as ")
    assert found.overlap.effective_rows == pytest.approx(arms.sum())


def test_a_row_that_outweighs_the_others_is_named():
    log = uniform_log()
    propensities = log.propensities.copy()
    propensities[17] = 0.001
    found = evaluate(replace(log, propensities=propensities), np.full((1000, 4), 0.25))
    assert "Row 17 alone has 20% of all the weight." in found.overlap.warnings


def test_arms_hardly_played_are_worth_a_warning():
    log = uniform_log(K=5)
    log = Log(np.where(np.arange(1000) < 6, 4, log.arms % 4), log.rewards, np.full(1000, 0.25), K=5)
    found = evaluate(log, np.tile([0.25, 0.25, 0.25, 0.24, 0.01], (1000, 1)))
    assert "1.0% go to arms with fewer than 10 plays: 4." in " ".join(found.overlap.warnings)
    assert found.overlap.coverage == pytest.approx(0.99)
    found = evaluate(log, np.tile([0.25, 0.25, 0.25, 0.2499, 0.0001], (1000, 1)))
    assert "plays" not in " ".join(found.overlap.warnings)


def test_two_rows_are_enough_to_be_told_that_they_are_too_few():
    found = evaluate(Log(np.array([0, 1]), np.array([0.0, 1.0]), np.array([0.5, 0.5]), K=2), np.full((2, 2), 0.5))
    assert found.why == "The log tells as much as 2 rows of the target's own; an answer takes 100."
    assert all(math.isfinite(estimate.value) for estimate in found.estimates.values())


def test_a_target_that_nothing_supports_gives_no_nan():
    log = Log(np.zeros(50, dtype=int), np.ones(50), np.ones(50), K=2)
    found = evaluate(log, np.tile([0.0, 1.0], (50, 1)))
    assert not found.answerable
    for estimate in found.estimates.values():
        assert math.isfinite(estimate.value)
        assert math.isfinite(estimate.error)
    assert (found.low, found.high, found.overlap.effective_rows) == (0.0, 1.0, 0.0)


# Predictions


def test_no_prediction_knows_its_own_reward():
    log, _, _, _ = world(5, 60)
    turned = log.rewards.copy()
    turned[7] = 1.0 - turned[7]
    other = replace(log, rewards=turned)
    for predict in (ridge_predictions, running_means):
        before, after = predict(log), predict(other)
        assert np.array_equal(before[7], after[7])
        assert not np.array_equal(before, after)
    assert np.array_equal(running_means(log)[:8], running_means(other)[:8])


def test_ridge_predictions_are_those_of_the_normal_equations():
    log, _, _, _ = world(6, 90)
    q = ridge_predictions(log, l2=2.0, folds=3)
    x = np.column_stack([np.ones(90), (log.contexts - log.contexts.mean(axis=0)) / log.contexts.std(axis=0)])
    rest = np.arange(90) % 3 != 1
    mine, base = rest & (log.arms == 2), log.rewards[rest].mean()
    A = sum(np.outer(row, row) for row in x[mine]) + 2.0 * np.eye(3)
    b = sum(row * (reward - base) for row, reward in zip(x[mine], log.rewards[mine], strict=True))
    assert q[1::3, 2] == pytest.approx(np.clip(base + x[1::3] @ np.linalg.inv(A) @ b, 0, 1))


def test_without_contexts_a_prediction_is_a_shrunken_mean():
    log = uniform_log(40)
    q = ridge_predictions(log, l2=3.0, folds=2)
    rest = np.arange(40) % 2 == 1
    base, mine = log.rewards[rest].mean(), log.rewards[rest & (log.arms == 1)]
    assert q[::2, 1] == pytest.approx((3.0 * base + mine.sum()) / (3.0 + len(mine)))


def test_an_arm_never_played_is_predicted_by_the_mean_of_all():
    log = Log(np.zeros(20, dtype=int), np.linspace(0, 1, 20), np.ones(20), K=2)
    assert ridge_predictions(log, folds=2)[::2, 1] == pytest.approx(log.rewards[1::2].mean())
    assert running_means(log)[10, 1] == pytest.approx((0.5 + log.rewards[:10].sum()) / 11)


def test_contexts_that_never_change_or_are_huge_are_no_trouble():
    log = uniform_log(
        100, contexts=np.tile([5.0, -1e308], (100, 1)) * np.r_[np.ones(50), -np.ones(50)][:, None] ** [0, 1]
    )
    q = ridge_predictions(log)
    assert np.isfinite(q).all()


@pytest.mark.parametrize("wrong", [{"l2": 0.0}, {"l2": math.nan}, {"folds": 1}, {"folds": 1001}])
def test_settings_of_the_predictions_are_checked(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
        ridge_predictions(uniform_log(), **wrong)


# The target of a policy


def test_a_policy_without_a_context_is_asked_once_for_each_mask():
    allowed = np.tile([[True, True, True, True], [True, False, True, True]], (500, 1))
    log = uniform_log()
    log = Log(np.where(log.arms == 1, 0, log.arms), log.rewards, log.propensities, K=4, allowed=allowed)
    policy, sums = Thompson(), np.array([[5.0, 4.0, 4.0], [5.0, 1.0, 1.0], [9.0, 5.0, 5.0], [0.0, 0.0, 0.0]])
    target = target_of(policy, sums, log)
    fitted = policy.fit(sums)
    for row in range(4):
        assert np.array_equal(target[row], fitted(None, allowed[row]))
    assert np.array_equal(target_of(policy, sums, uniform_log()), np.tile(fitted(None, np.ones(4, bool)), (1000, 1)))


def test_a_policy_with_a_context_is_asked_row_by_row():
    class Sign(EpsilonGreedy):
        features = 2

        def fit(self, sums):
            return lambda context, _: np.eye(4)[1 if context[0] > 0 else 2]

    log, _, _, _ = world(7, 50)
    target = target_of(Sign(), np.zeros((4, 3)), log)
    assert np.array_equal(target.argmax(axis=1), np.where(log.contexts[:, 0] > 0, 1, 2))


def test_sums_of_other_arms_are_refused():
    with pytest.raises(ValueError, match=r"^sums: 3 arms, but the log has 4"):
        target_of(Split((1, 1, 1)), np.zeros((3, 3)), uniform_log())


# What is refused


GOOD: dict[str, Any] = {
    "arms": np.array([0, 1, 2]),
    "rewards": np.array([0.0, 0.5, 1.0]),
    "propensities": np.array([1.0, 0.5, 0.1]),
    "K": 3,
    "contexts": np.zeros((3, 2)),
    "allowed": np.ones((3, 3), dtype=bool),
}


@pytest.mark.parametrize(
    ("name", "wrong", "sentence"),
    [
        ("K", 0, r"^K: "),
        ("arms", np.array([0, 1, 3]), r"^arms: row 2: .*0 to 2"),
        ("arms", np.array([0, -1, 2]), r"^arms: row 1"),
        ("arms", np.array([0.0, 1.0, 2.0]), r"^arms: must be int"),
        ("arms", np.array([], dtype=int), r"^arms: "),
        ("rewards", np.array([0.0, math.nan, 1.0]), r"^rewards: row 1: "),
        ("rewards", np.array([0.0, 0.5, 1.5]), r"^rewards: row 2: (?!.*1\.5)"),
        ("rewards", np.zeros(2), r"^rewards: must be float\[3\]"),
        ("rewards", ["x", "y", "z"], r"^rewards: must be an array of numbers"),
        ("propensities", np.array([1.0, 0.0, 0.1]), r"^propensities: row 1: "),
        ("propensities", np.array([1.0, 0.5, 1.1]), r"^propensities: row 2: "),
        ("propensities", np.array([math.inf, 0.5, 0.1]), r"^propensities: row 0: "),
        ("contexts", np.array([[0, 1], [0, 1], [math.inf, 1]]), r"^contexts: row 2: "),
        ("contexts", np.zeros(3), r"^contexts: must be float\[3, d\]"),
        ("allowed", np.eye(3)[:, ::-1] > 0, r"^allowed: row 0: "),
        ("allowed", np.ones((3, 2), dtype=bool), r"^allowed: must be bool\[3, 3\]"),
        ("allowed", np.ones((3, 3)), r"^allowed: must be bool"),
        ("units", np.zeros(2, dtype=int), r"^units: must be int\[3\]"),
        ("units", np.zeros(3), r"^units: must be int\[3\], not float64\[3\]"),
        ("drawn_from", np.ones((3, 2)), r"^drawn_from: must be float\[3, 3\]"),
        ("drawn_from", np.array([[0, 1, 0], [0, 1, 0], [0, math.nan, 0]]), r"^drawn_from: row 2: "),
    ],
)
def test_a_log_that_cannot_be_is_refused(name, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Log(**{**GOOD, name: wrong})


def test_a_log_is_its_own_and_read_only():
    given_rewards = GOOD["rewards"].copy()
    log = Log(**{**GOOD, "rewards": given_rewards})
    given_rewards[:] = 7.0
    assert log.rewards.tolist() == [0.0, 0.5, 1.0]
    for array in (log.arms, log.rewards, log.propensities, log.contexts, log.allowed):
        assert array is not None
        assert not array.flags.writeable
    assert len(log) == 3


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (np.full((1000, 4), 0.3), r"^target: row 0: .*sum 1"),
        (np.full((1000, 3), 1 / 3), r"^target: must be float\[1000, 4\]"),
        (np.tile([1.5, -0.5, 0.0, 0.0], (1000, 1)), r"^target: row 0: .*0 to 1"),
        (np.full((1000, 4), math.nan), r"^target: row 0"),
    ],
)
def test_a_target_that_is_no_distribution_is_refused(target, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate(uniform_log(), target)


def test_a_target_on_arms_that_were_not_allowed_is_refused():
    allowed = np.ones((1000, 4), dtype=bool)
    log = uniform_log()
    allowed[30, (log.arms[30] + 1) % 4] = False
    with pytest.raises(ValueError, match=r"^target: row 30: .*not allowed"):
        evaluate(replace(log, allowed=allowed), np.full((1000, 4), 0.25))


def test_other_arguments_are_checked():
    log, target = uniform_log(), np.full((1000, 4), 0.25)
    for name in ("clip", "tau", "lam"):
        for limit in (0.0, -1.0, math.nan, ()):
            wrong_limit: dict[str, Any] = {name: limit}
            with pytest.raises(ValueError, match=f"^{name}: "):
                evaluate(log, target, **wrong_limit)
    for wrong in (0.0, 0.3, math.nan):
        with pytest.raises(ValueError, match=r"^floor: "):
            evaluate(log, target, floor=wrong)
    with pytest.raises(ValueError, match=r"^predictions: row 0"):
        evaluate(log, target, predictions=target * 5)
    with pytest.raises(ValueError, match=r"^alpha: "):
        evaluate(log, target, alpha=0.0)
    with pytest.raises(ValueError, match=r"^log: "):
        evaluate(Log(np.array([0]), np.array([1.0]), np.array([0.5]), K=2), np.array([[0.5, 0.5]]))
    with pytest.raises(ValueError, match=r"^propensities: row 3: too small"):
        evaluate(replace(log, propensities=np.where(np.arange(1000) == 3, 5e-324, 0.25)), target)
