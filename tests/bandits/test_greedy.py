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


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, math.nan, math.inf])
def test_an_epsilon_that_is_no_probability_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"^epsilon: "):
        EpsilonGreedy(epsilon)
