"""Exp3-IX as a sum of losses, against its formulas and its published bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import Policy, Thompson
from bandits.exp3 import Exp3IX

ALL = np.ones(3, dtype=bool)


def rows(losses: list[float], plays: float = 1000.0) -> np.ndarray:
    """Arms of the given losses, none of which was ever successful."""
    return np.array([(plays / len(losses), 0, 0, loss) for loss in losses])


def test_a_loss_is_divided_by_the_logged_propensity_plus_gamma() -> None:
    assert Exp3IX(gamma=0.05).delta(0.25, None, 0.2).tolist() == [1, 0.25, 0.0625, 0.75 / (0.2 + 0.05)]


def test_p_falls_exponentially_with_the_loss() -> None:
    """exp(-eta L), eta = rate sqrt(2 ln K / (K n)): after 1000 plays of 4 arms, in full."""
    losses = np.array([300.0, 320.0, 350.0, 500.0])
    for rate in (1.0, 0.3):
        expected = np.exp(-rate * math.sqrt(2 * math.log(4) / (4 * 1000)) * losses)
        p = Exp3IX(rate=rate).fit(rows(losses.tolist()))(None, np.ones(4, dtype=bool))
        assert p == pytest.approx(expected / expected.sum(), rel=1e-12)


def test_only_differences_of_losses_matter() -> None:
    losses = np.array([1e8, 1e8 + 1e4, 1e8 + 3e4])
    near, far = (Exp3IX().fit(rows(each.tolist(), plays=3e8))(None, ALL) for each in (losses, losses + 9e9))
    assert near[0] > 2 * near[2]
    assert far == pytest.approx(near, rel=1e-9)


def test_the_number_of_arms_is_that_of_the_allowed() -> None:
    p = Exp3IX().fit(rows([310.0, 300.0, 340.0], plays=900))(None, np.array([True, False, True]))
    assert p[1] == 0
    assert math.log(p[0] / p[2]) == pytest.approx(30 * math.sqrt(2 * math.log(2) / (2 * 900)))


def test_nothing_learnt_makes_all_equal() -> None:
    assert Exp3IX().fit(np.zeros((3, 4)))(None, ALL) == pytest.approx([1 / 3] * 3)


def test_less_than_one_play_in_all_counts_as_one() -> None:
    """Else eta would grow without end as everything is forgotten."""
    p = Exp3IX(gamma=0.1).fit(np.array([(1e-9, 0, 0, 1e-8), (0, 0, 0, 0)]))(None, np.ones(2, dtype=bool))
    assert p == pytest.approx([0.5, 0.5], abs=1e-7)


def test_a_hopeless_arm_gets_nothing_rather_than_nan() -> None:
    p = Exp3IX(rate=1000).fit(rows([1e6, 4e7, 4e7], plays=3e6))(None, ALL)
    assert p.tolist() == [1, 0, 0]


def test_an_arms_loss_is_estimated_as_if_it_had_always_been_chosen_but_for_gamma() -> None:
    """E L = (1 - r) p / (p + gamma) a round, by Monte Carlo."""
    rng = np.random.default_rng(5)
    policy, p = Exp3IX(gamma=0.02), np.array([0.7, 0.25, 0.05])
    sums = np.zeros((3, policy.width))
    for arm in rng.choice(3, 20_000, p=p):
        sums[arm] += policy.delta(0.4, None, p[arm])
    each = sums[:, 3] / 20_000
    error = 0.6 / (p + 0.02) * np.sqrt(p * (1 - p) / 20_000)
    assert (np.abs(each - 0.6 * p / (p + 0.02)) < 4 * error).all()


def test_rows_of_another_gamma_are_another_layout() -> None:
    assert Exp3IX(gamma=0.05).layout == "exp3_ix:0.05"
    assert Exp3IX(gamma=1).layout == "exp3_ix:1.0" == Exp3IX(gamma=1.0, rate=2).layout


rewards_and_propensities = st.lists(st.tuples(st.floats(0, 1), st.floats(1e-3, 1)), max_size=20)


@settings(max_examples=50, deadline=None)
@given(st.lists(rewards_and_propensities, min_size=2, max_size=4), st.sampled_from([1e-6, 0.01, 1.0]))
def test_whatever_was_learnt_is_accepted(history: list[list[tuple[float, float]]], gamma: float) -> None:
    policy = Exp3IX(gamma)
    deltas = [[policy.delta(r, None, p) for r, p in arm] for arm in history]
    sums = np.array([np.sum([np.zeros(4), *arm], axis=0) for arm in deltas])
    p = policy.fit(sums)(None, np.ones(len(history), dtype=bool))
    assert p.sum() == pytest.approx(1, abs=1e-12)


def reward_of(policy: Policy, rewards: np.ndarray, rng: np.random.Generator) -> float:
    """What the policy earns of rewards[round, arm]."""
    sums, everyone = np.zeros((rewards.shape[1], policy.width)), np.ones(rewards.shape[1], dtype=bool)
    earned = 0.0
    for row in rewards:
        p = policy.fit(sums)(None, everyone)
        arm = rng.choice(len(row), p=p)
        sums[arm] += policy.delta(row[arm], None, p[arm])
        earned += row[arm]
    return earned


STEADY = np.tile([0.3, 0.8, 0.2], (2000, 1))
TURNING = np.vstack([np.tile([0.9, 0.1, 0.2], (800, 1)), np.tile([0.1, 0.9, 0.2], (1200, 1))])


@pytest.mark.parametrize("rewards", [STEADY, TURNING], ids=["steady", "turning"])
def test_regret_keeps_the_published_bound(rewards: np.ndarray) -> None:
    """2 sqrt(2 K T ln K), the part of Neu's Theorem 1 without the confidence, that choosing at random breaks."""
    rounds, arms = rewards.shape
    best, bound = rewards.sum(axis=0).max(), 2 * math.sqrt(2 * arms * rounds * math.log(arms))
    assert best - rewards.mean(axis=1).sum() > bound
    policy = Exp3IX(gamma=math.sqrt(math.log(arms) / (2 * arms * rounds)))
    for seed in range(3):
        assert best - reward_of(policy, rewards, np.random.default_rng(seed)) < bound


def test_it_finds_a_better_arm_that_thompson_sampling_has_given_up() -> None:
    """One that never succeeded in its first plays: Thompson sampling is sure of what it saw, and it has changed."""
    rewards = np.vstack([np.tile([0.5, 0.0], (1500, 1)), np.tile([0.5, 1.0], (1500, 1))])
    ours, theirs = (reward_of(policy, rewards, np.random.default_rng(6)) for policy in (Exp3IX(), Thompson()))
    assert ours > theirs


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1e-7, 1.1, math.nan, math.inf])
def test_a_gamma_outside_its_range_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^gamma: "):
        Exp3IX(gamma=wrong)


@pytest.mark.parametrize("wrong", [0.0, -1.0, 1e4, math.nan, math.inf])
def test_a_rate_outside_its_range_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^rate: "):
        Exp3IX(rate=wrong)


@pytest.mark.parametrize(
    "row", [(-1, 0, 0, 0), (1, 2, 4, 0), (4, 2, 1, -1), (4, 2, 1, 1.9), (4, 2, 1, 201), (0, 0, 0, 1)]
)
def test_sums_that_no_rewards_can_make_are_refused(row: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"^sums: .*arm 1"):
        Exp3IX(gamma=0.01).fit(np.array([(1.0, 0.5, 0.25, 1.0), row]))
