from __future__ import annotations

import math

import numpy as np
import pytest

from bandits import EpsilonGreedy

ALL = np.ones(3, dtype=bool)


def rows(*plays_and_rewards: tuple[float, float]) -> np.ndarray:
    return np.array([(n, r, r) for n, r in plays_and_rewards], dtype=float)


def test_the_best_mean_gets_all_but_epsilon() -> None:
    p = EpsilonGreedy(0.3).fit(rows((10, 5), (100, 60), (4, 1)))(None, ALL)
    assert p == pytest.approx([0.1, 0.8, 0.1])


def test_equal_means_share() -> None:
    p = EpsilonGreedy(0.3).fit(rows((2, 1), (100, 50), (4, 1)))(None, ALL)
    assert p == pytest.approx([0.45, 0.45, 0.1])


def test_an_arm_without_rewards_counts_as_best() -> None:
    """Even against an arm that never failed."""
    p = EpsilonGreedy(0.3).fit(rows((0, 0), (100, 100), (0, 0)))(None, ALL)
    assert p == pytest.approx([0.45, 0.1, 0.45])


def test_nothing_learnt_makes_all_equal() -> None:
    assert EpsilonGreedy().fit(np.zeros((3, 3)))(None, ALL) == pytest.approx([1 / 3] * 3)


def test_the_best_is_that_of_the_allowed_arms() -> None:
    p = EpsilonGreedy(0.2).fit(rows((10, 5), (10, 9), (10, 1)))(None, np.array([True, False, True]))
    assert p == pytest.approx([0.9, 0, 0.1])


def test_epsilon_zero_never_explores_and_one_always_does() -> None:
    sums = rows((10, 5), (10, 9), (10, 1))
    assert EpsilonGreedy(0).fit(sums)(None, ALL).tolist() == [0, 1, 0]
    assert EpsilonGreedy(1).fit(sums)(None, ALL) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(("plays", "epsilon"), [(0, 0.3), (40, 0.3), (100, 0.3), (150, 0.2), (300_000, 1e-4)])
def test_epsilon_stays_for_the_constant_plays_and_then_falls_as_one_over_them(plays: int, epsilon: float) -> None:
    each = plays / 4
    p = EpsilonGreedy(0.3, constant_plays=100).fit(rows((2 * each, each), (each, each), (each, 0)))(None, ALL)
    if plays == 0:
        assert p == pytest.approx([1 / 3] * 3)
    else:
        assert p == pytest.approx([epsilon / 3, 1 - 2 * epsilon / 3, epsilon / 3])


def test_epsilon_decays_with_the_plays_of_forbidden_arms_too() -> None:
    p = EpsilonGreedy(1.0, constant_plays=50).fit(rows((10, 5), (80, 9), (10, 1)))(None, np.array([True, False, True]))
    assert p == pytest.approx([0.75, 0, 0.25])


@pytest.mark.parametrize(("arms", "c", "d", "n"), [(2, 0.05, 0.1, 40), (5, 0.15, 0.2, 1000), (10, 5, 0.05, 10**7)])
def test_the_decay_of_auer_and_others_is_one_of_ours(arms: int, c: float, d: float, n: int) -> None:
    """epsilon_n = min(1, c K / (d^2 n)), here the share of the arms that are not the best."""
    policy = EpsilonGreedy(epsilon=1, constant_plays=c * arms / d**2)
    sums = np.array([(n / arms, (k == 0) * n / arms, 0) for k in range(arms)])
    p = policy.fit(sums)(None, np.ones(arms, dtype=bool))
    assert p[1] == pytest.approx(min(1, c * arms / (d**2 * n)) / arms)


def test_epsilon_never_decays_unless_told_to() -> None:
    p = EpsilonGreedy(0.3).fit(rows((1e15, 1e15), (1e15, 0), (1e15, 0)))(None, ALL)
    assert p == pytest.approx([0.8, 0.1, 0.1])


@pytest.mark.parametrize("plays", [0, -1, math.nan, -math.inf])
def test_no_constant_plays_are_refused(plays: float) -> None:
    with pytest.raises(ValueError, match=r"^constant_plays: "):
        EpsilonGreedy(constant_plays=plays)


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, math.nan, math.inf])
def test_an_epsilon_that_is_no_probability_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"^epsilon: "):
        EpsilonGreedy(epsilon)
