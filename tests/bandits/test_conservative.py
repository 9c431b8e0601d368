from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import EpsilonGreedy, Mask, Policy, Split, Thompson, Vector
from bandits.anytime.rates import rate_interval
from bandits.conservative import Conservative
from bandits.floor import Floor
from bandits.linear_thompson import LinearThompson
from bandits.squarecb import SquareCB
from tests.bandits.contract import Case, PolicyContract

CASES = [
    Case(Conservative(Thompson(), champion=0)),
    Case(Conservative(SquareCB(3), champion=3, share=0.5, plays=10.0)),
    Case(Floor(Conservative(LinearThompson(2), champion=2), floor=0.01)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.policy))
class TestGuarded(PolicyContract):
    """A policy under guard is a policy."""


def counts(*arms: tuple[float, float]) -> Vector:
    """Rows of arms of so many plays and such a mean."""
    return np.array([(n, n * mean, n * mean * mean) for n, mean in arms])


def dealt(policy: Policy, sums: Vector, allowed: Mask | None = None) -> Vector:
    return policy.fit(sums)(None, np.ones(len(sums), dtype=bool) if allowed is None else allowed)


# What it bears


def test_in_the_beginning_the_challengers_share_the_share() -> None:
    p = dealt(Conservative(Thompson(), champion=1, share=0.05), np.zeros((4, 3)))
    assert p == pytest.approx([0.05 / 3, 0.95, 0.05 / 3, 0.05 / 3], abs=1e-12)


def test_a_challenger_that_is_shown_to_be_better_is_left_alone() -> None:
    sums = counts((10_000, 0.5), (10_000, 0.7), (0, 0.0))
    p, inside = dealt(Conservative(Split((1, 1, 1)), champion=0), sums), dealt(Split((1, 1, 1)), sums)
    assert p[1] == inside[1]
    assert p[2] == pytest.approx(0.05, abs=1e-12), "of the newcomer nothing is known"
    assert dealt(Conservative(Thompson(), champion=0), sums[:2]) == pytest.approx([0.0, 1.0], abs=1e-12)


def test_the_more_is_known_the_less_is_held_back() -> None:
    shares = [dealt(Conservative(Split((1, 9)), 0), counts((n, 0.5), (n, 0.49)))[1] for n in (0, 100, 1_000, 10_000)]
    assert shares == sorted(set(shares))
    assert dealt(Conservative(Split((1, 9)), 0), counts((1e6, 0.5), (1e6, 0.49)))[1] == pytest.approx(0.9, abs=1e-12)


def test_a_champion_that_is_not_allowed_guards_nothing() -> None:
    sums = counts((100, 0.5), (100, 0.1), (10, 0.9))
    ejected = np.array([False, True, True])
    assert np.array_equal(dealt(Conservative(Thompson(), 0), sums, ejected), dealt(Thompson(), sums, ejected))
    without_another = np.array([True, True, False])
    assert dealt(Conservative(Thompson(), 0), sums, without_another).sum() == pytest.approx(1, abs=1e-12)


arms = st.lists(st.tuples(st.integers(0, 5_000), st.floats(0.0, 1.0)), min_size=2, max_size=5)
shares = st.sampled_from([0.01, 0.05, 0.3, 1.0])


def cost_and_spare(guard: Conservative, sums: Vector, p: Vector) -> list[tuple[float, float]]:
    """What a play may cost, by lower bounds, and what is borne: for means that the champion may have, greatest last."""
    bounds = np.array([rate_interval(r, n, alpha=guard.alpha / len(sums)) for n, r, _ in sums])
    challengers = np.arange(len(sums)) != guard.champion
    plays, lower = sums[:, 0], bounds[:, 0]
    low, high = bounds[guard.champion]
    pairs = []
    for mean in (low, (low + high) / 2, high):
        earned = (plays * lower)[challengers].sum() + plays[guard.champion] * mean
        budget = earned - (1 - guard.share) * plays.sum() * mean
        cost = (p * (mean - lower))[challengers & (lower < high)].sum()
        pairs.append((cost, max(guard.share * mean + budget / guard.plays, 0.0)))
    return pairs


@settings(max_examples=50, deadline=None)
@given(arms=arms, share=shares, plays=st.sampled_from([1.0, 10.0, 1_000.0, math.inf]))
def test_as_much_is_dealt_as_is_borne_and_no_more(arms: list[tuple[int, float]], share: float, plays: float) -> None:
    sums = counts(*arms)
    policy = Split((1.0,) * len(arms))
    guard = Conservative(policy, champion=1, share=share, plays=plays)
    p, inside = dealt(guard, sums), dealt(policy, sums)
    pairs = cost_and_spare(guard, sums, p)
    assert all(cost <= spare + 1e-12 for cost, spare in pairs)
    assert (np.delete(p, 1) <= np.delete(inside, 1)).all(), "only the champion gains"
    if not np.array_equal(p, inside):
        cost, spare = pairs[-1]
        assert cost == pytest.approx(spare, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(champion=st.tuples(st.integers(0, 5_000), st.floats(0.1, 0.5)), challenger=st.integers(0, 300), share=shares)
def test_play_by_play_it_is_the_rule_of_the_source(champion: tuple[int, float], challenger: int, share: float) -> None:
    """Σ T_i L_i + L_a + T_0 μ >= (1 - share) (t + 1) μ for all that μ may be, or the champion."""
    sums = counts(champion, (challenger, 0.6))
    (low, high), (lower, _) = (rate_interval(r, n, alpha=0.05 / 2) for n, r, _ in sums)
    margin = min(
        challenger * lower + lower + champion[0] * mean - (1 - share) * (champion[0] + challenger + 1) * mean
        for mean in (low, high)
    )
    p = dealt(Conservative(Split((0, 1)), 0, share, plays=1.0), sums)
    if lower < high and abs(margin) > 1e-9:
        assert (p[1] == 1.0) == (margin > 0)


# What it promises


def simulate(policy: Policy, means: Vector, fits: int, batch: int, seed: int) -> tuple[Vector, Vector]:
    """Plays of each arm after each fit, and what the champion, arm 0, would have earned less what was expected."""
    rng = np.random.default_rng(seed)
    sums = np.zeros((len(means), 3))
    plays, behind = np.zeros((fits, len(means))), np.zeros(fits)
    for i in range(fits):
        p = dealt(policy, sums)
        drawn = rng.multinomial(batch, p)
        earned = rng.binomial(drawn, means)
        sums += np.stack([drawn, earned, earned], axis=1)
        plays[i] = sums[:, 0]
        behind[i] = batch * (means[0] - p @ means)
    return plays, behind.cumsum()


WORLD = np.array([0.5, 0.05, 0.55, 0.3])


@pytest.mark.parametrize("batch", [1, 300])
@pytest.mark.parametrize("policy", [Thompson(), EpsilonGreedy(0.2)], ids=str)
def test_it_never_falls_more_than_the_share_below_the_champion(policy: Policy, batch: int) -> None:
    """However many decisions are taken on one fit. Without the guard every run does."""
    guarded = unguarded = 0
    for seed in range(20):
        allowance = 0.1 * WORLD[0] * batch * np.arange(1, 61)
        _, behind = simulate(Conservative(policy, champion=0, share=0.1), WORLD, 60, batch, seed)
        guarded += bool((behind > allowance * (1 + 1e-12)).any())
        _, behind = simulate(policy, WORLD, 60, batch, seed)
        unguarded += bool((behind > allowance).any())
    assert guarded <= 1, "alpha is 5 %"
    assert unguarded == 20


def test_a_budget_that_is_spread_over_the_plays_of_a_fit_is_not_overdrawn() -> None:
    batch = 100
    policy = Conservative(Thompson(), champion=0, share=0.1, plays=batch)
    broken = 0
    for seed in range(20):
        plays, _ = simulate(policy, WORLD, 60, batch, seed)
        pace = 0.9 * WORLD[0] * plays.sum(axis=1)
        luck = 4 * math.sqrt(batch)  # how far the draws of one batch may stray from p
        broken += bool((plays @ WORLD < pace - luck).any())
    assert broken <= 1


def test_the_better_challenger_wins_through_in_the_end() -> None:
    means = np.array([0.5, 0.05, 0.65])
    for plays in (math.inf, 100.0):
        for seed in range(5):
            policy = Conservative(Thompson(), champion=0, share=0.1, plays=plays)
            counted, _ = simulate(policy, means, 200, 100, seed)
            assert counted[-1, 2] - counted[-51, 2] > 0.95 * 50 * 100


def test_the_bounds_hold_for_rewards_between_0_and_1() -> None:
    """A convex combination of 0 and 1 has no greater E exp(λx) than the Bernoulli variable of its mean."""
    rng = np.random.default_rng(11)
    missed = 0
    for _ in range(200):
        rewards = rng.beta(0.2, 0.8, 500).cumsum()
        missed += any(
            not low <= 0.2 <= high
            for low, high in (rate_interval(rewards[n - 1], n, alpha=0.1) for n in (1, 3, 10, 30, 100, 200, 500))
        )
    assert missed <= 20


# What it refuses


def test_a_champion_that_is_no_arm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^champion: "):
        Conservative(Thompson(), champion=-1)
    with pytest.raises(ValueError, match=r"^champion: 4 is none of the 4 arms"):
        Conservative(Thompson(), champion=4).fit(np.zeros((4, 3)))


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.1, math.nan])
def test_a_share_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^share: "):
        Conservative(Thompson(), 0, share=wrong)


@pytest.mark.parametrize("wrong", [0.0, 1.0, math.nan])
def test_an_alpha_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^alpha: "):
        Conservative(Thompson(), 0, alpha=wrong)


@pytest.mark.parametrize("wrong", [0.0, 0.99, -math.inf, math.nan])
def test_no_plays_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^plays: "):
        Conservative(Thompson(), 0, plays=wrong)


def test_counts_that_no_rewards_can_sum_to_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^sums: .*arm 1"):
        Conservative(Thompson(), 0).fit(np.array([(1.0, 0.5, 0.25), (1.0, 2.0, 4.0)]))
