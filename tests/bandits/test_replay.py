"""Replay of a learning policy over a log: as if it had been in charge, or it says that it cannot tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chisquare

from bandits import EpsilonGreedy, Split, Thompson, sampler
from bandits.anytime.off_policy import value_interval
from bandits.log import Log
from bandits.offline import evaluate
from bandits.replay import replay

MEANS = np.array([0.2, 0.5, 0.7])


def bernoulli_log(n, p, seed=0, means=MEANS):
    """Rewards by arm alone, arms drawn from p: one for all rows, or one for each."""
    rng = np.random.default_rng(seed)
    p = np.broadcast_to(p, (n, len(means)))
    arms = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return Log(arms, (rng.random(n) < means[arms]).astype(float), p[np.arange(n), arms], K=len(means))


def in_charge(policy, steps, seed):
    """The rewards of a policy that learns from each."""
    rng = np.random.default_rng(seed)
    sums, rewards = np.zeros((3, policy.width)), []
    everyone, draw = np.ones(3, dtype=bool), sampler(f"live-{seed}", ["a", "b", "c"])
    for step in range(steps):
        p = policy.fit(sums)(None, everyone)
        arm = draw(p, str(step))
        rewards.append(float(rng.random() < MEANS[arm]))
        sums[arm] += policy.delta(rewards[-1], None, p[arm])
    return np.array(rewards)


@pytest.mark.parametrize("p", [np.full(3, 1 / 3), np.array([0.5, 0.3, 0.2])], ids=["uniform", "uneven"])
def test_a_policy_learns_in_replay_as_it_would_have_in_charge(p):
    """The first 100 rewards, in two halves, of 40 replays beside 40 runs in charge."""
    policy = EpsilonGreedy(epsilon=0.2)
    replayed = np.array(
        [replay(policy, bernoulli_log(800, p, seed), salt=f"{seed}").rewards[:100] for seed in range(40)]
    )
    live = np.array([in_charge(policy, 100, seed) for seed in range(40)])
    for half in (slice(0, 50), slice(50, 100)):
        a, b = replayed[:, half].mean(axis=1), live[:, half].mean(axis=1)
        assert abs(a.mean() - b.mean()) < 4 * math.sqrt((a.var() + b.var()) / 40)
    assert replayed[:, 50:].mean() > 0.58, "it learns: by chance it would earn 0.47"


def test_of_a_fixed_policy_it_agrees_with_off_policy_evaluation():
    target = np.array([0.6, 0.3, 0.1])
    log = bernoulli_log(20_000, np.array([0.2, 0.3, 0.5]))
    lived, evaluated = replay(Split(tuple(target)), log), evaluate(log, np.tile(target, (20_000, 1)))
    error = math.hypot(evaluated.ips.error, lived.rewards.std() / math.sqrt(len(lived.rows)))
    assert abs(lived.value - evaluated.ips.value) < 4 * error
    assert lived.low < MEANS @ target < lived.high
    assert lived.answerable


def test_what_counts_is_spread_as_the_policy_chooses_however_it_was_logged():
    """Also where propensities depend on the context: each row counts with the least propensity, 0.1."""
    n, target = 20_000, np.array([0.5, 0.4, 0.1])
    p = np.where(np.arange(n)[:, None] % 2, [0.8, 0.1, 0.1], [0.1, 0.2, 0.7])
    lived = replay(Split(tuple(target)), bernoulli_log(n, p))
    log = bernoulli_log(n, p)
    for parity in (0, 1):
        rows = lived.rows[lived.rows % 2 == parity]
        assert chisquare(np.bincount(log.arms[rows], minlength=3), target * len(rows)).pvalue > 1e-3
        assert len(rows) == pytest.approx(0.1 * n / 2, abs=4 * math.sqrt(0.1 * n / 2))
    assert lived.expected == pytest.approx(2000)


def test_only_rows_that_count_are_learnt_from():
    log = bernoulli_log(2000, np.full(3, 1 / 3))
    lived = replay(Thompson(), log)
    expected = np.zeros((3, 3))
    for row in lived.rows:
        expected[log.arms[row]] += [1.0, log.rewards[row], log.rewards[row] ** 2]
    assert np.array_equal(lived.sums, expected)
    assert np.array_equal(lived.rewards, log.rewards[lived.rows])
    assert lived.curve[[0, -1]] == pytest.approx([lived.rewards[0], lived.value])


def test_it_refits_after_each_batch_and_goes_on_from_what_was_learnt():
    class Counting(EpsilonGreedy):
        fitted_to: list[float] = []  # noqa: RUF012 - shared on purpose

        def fit(self, sums):
            self.fitted_to.append(sums[:, 0].sum())
            return super().fit(sums)

    log = bernoulli_log(600, np.full(3, 1 / 3))
    learnt = np.array([[10.0, 2.0, 2.0], [10.0, 5.0, 5.0], [10.0, 7.0, 7.0]])
    lived = replay(Counting(), log, batch=50, sums=learnt)
    assert Counting.fitted_to == [30.0 + 50 * i for i in range(1 + len(lived.rows) // 50)]
    assert learnt[:, 0].tolist() == [10.0, 10.0, 10.0]


def test_contexts_masks_and_propensities_reach_the_policy():
    class Mirror(EpsilonGreedy):
        """Chooses the arm that the context names, among the allowed."""

        features = 1

        def fit(self, sums):
            def fitted(context, allowed):
                p = np.where(np.arange(3) == context[0], 3.0, 1.0) * allowed
                return p / p.sum()

            return fitted

        def delta(self, reward, context, propensity):
            seen.append((context[0], propensity))
            return super().delta(reward, context, propensity)

    seen: list[tuple[float, float]] = []
    n = 3000
    rng = np.random.default_rng(1)
    allowed = np.tile([[True, True, True], [True, True, False]], (n // 2, 1))
    arms = np.where(allowed[:, 2], rng.integers(3, size=n), rng.integers(2, size=n))
    contexts = rng.integers(2, size=(n, 1)).astype(np.float64)
    log = Log(arms, rng.random(n), np.where(allowed[:, 2], 1 / 3, 1 / 2), K=3, contexts=contexts, allowed=allowed)
    lived = replay(Mirror(), log)
    for (context, propensity), row in zip(seen, lived.rows, strict=True):
        named = arms[row] == context
        assert context == contexts[row, 0]
        assert propensity == pytest.approx((3 if named else 1) / (3 + allowed[row].sum() - 1))
    assert lived.answerable


def test_the_salt_is_all_the_chance_there_is():
    log = bernoulli_log(1000, np.array([0.5, 0.3, 0.2]))
    once, again, other = (replay(Thompson(), log, salt=salt) for salt in ("a", "a", "b"))
    assert np.array_equal(once.rows, again.rows)
    assert not np.array_equal(once.rows, other.rows)


def test_the_interval_covers_the_average_value_of_a_policy_that_learns():
    missed = 0
    for seed in range(25):
        log = bernoulli_log(900, np.full(3, 1 / 3), seed)
        lived = replay(EpsilonGreedy(epsilon=0.2), log, salt=str(seed))
        sums, values = np.zeros((3, 3)), []
        for row in lived.rows:
            values.append(EpsilonGreedy(epsilon=0.2).fit(sums)(None, np.ones(3, dtype=bool)) @ MEANS)
            sums[log.arms[row]] += [1.0, log.rewards[row], log.rewards[row]]
        missed += not lived.low <= np.mean(values) <= lived.high
        assert (lived.low, lived.high) == value_interval(np.ones(len(lived.rows)), lived.rewards, drifting=True)
        assert lived.high - lived.low < 0.4
    assert missed <= 3


# The log that cannot answer


def test_too_few_rows_are_no_answer():
    lived = replay(Thompson(), bernoulli_log(150, np.full(3, 1 / 3)))
    assert not lived.answerable
    assert lived.why == f"Only {len(lived.rows)} rows count; an answer takes 100."


def test_an_arm_that_was_never_logged_is_noticed():
    log = bernoulli_log(3000, np.array([0.5, 0.5, 0.0]))
    lived = replay(Split((1, 1, 2)), log)
    assert "instead of 1500: propensities are wrong" in lived.why


def test_where_nothing_counts_there_is_no_nan():
    lived = replay(Split((0, 1)), Log(np.zeros(20, dtype=int), np.ones(20), np.ones(20), K=2))
    assert (lived.value, lived.low, lived.high, lived.curve.tolist()) == (0.0, 0.0, 1.0, [])
    assert lived.why.startswith("Only 0 rows count")


# What is refused


def test_arguments_are_checked():
    log = bernoulli_log(100, np.full(3, 1 / 3))
    with pytest.raises(ValueError, match=r"^batch: "):
        replay(Thompson(), log, batch=0)
    with pytest.raises(ValueError, match=r"^sums: 2 arms, but the log has 3"):
        replay(Thompson(), log, sums=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"^sums: "):
        replay(Thompson(), log, sums=np.full((3, 3), math.nan))
    with pytest.raises(ValueError, match=r"^alpha: "):
        replay(Thompson(), log, alpha=2.0)
