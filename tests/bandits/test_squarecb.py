from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import SquareCB
from bandits.simulate import Feedback, simulate
from bandits.worlds import Linear as World
from tests.bandits.test_linear import EVERYONE, by_numpy, events, learn


def test_p_of_a_vector_worked_out_by_hand() -> None:
    """Without a feature that varies: 3 of 4, 1 of 4 and 0 of 1 rewards, and one arm without any.

    r̄ = (4 + 1/2) / (9 + 1) = .45; predictions (3.45, 1.45, .45) / (5, 5, 2) = .69, .29, .225, and .45; γ = 8 √9 = 24.
    """
    policy = SquareCB(1, 8.0)
    zero = np.zeros(1)
    sums = np.zeros((4, policy.width))
    for arm, rewards in enumerate([(1, 1, 1, 0), (1, 0, 0, 0), (0,), ()]):
        for reward in rewards:
            sums[arm] += policy.delta(reward, zero, 1.0)
    p = policy.fit(sums)(zero, np.ones(4, dtype=bool))
    others = [1 / (4 + 24 * 0.4), 1 / (4 + 24 * 0.465), 1 / (4 + 24 * 0.24)]
    assert p == pytest.approx([1 - sum(others), *others], abs=1e-14)
    p = policy.fit(sums)(zero, np.array([False, True, True, True]))  # the best of those, and three of them
    others = [1 / (3 + 24 * 0.16), 1 / (3 + 24 * 0.225)]
    assert p == pytest.approx([0, *others, 1 - sum(others)], abs=1e-14)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    features=st.integers(1, 8),
    gamma=st.floats(0, 1e6),
    exponent=st.floats(0, 1),
    allowed=st.lists(st.booleans(), min_size=3, max_size=3).filter(any),
)
def test_p_is_the_weighting_of_the_predictions(
    seed: int, features: int, gamma: float, exponent: float, allowed: list[bool]
) -> None:
    policy = SquareCB(features, gamma, exponent, mean=(0.3,) * features, scale=(1.7,) * features)
    told = events(features, seed=seed)
    fitted = policy.fit(learn(policy, told))
    mask = np.array(allowed)
    for _, _, x in events(features, number=3, seed=seed + 1):
        z = np.array([1.0, *((x - 0.3) / 1.7)])
        predicted = np.array([theta @ z for theta, _ in by_numpy(policy, told)])
        gap = predicted[mask].max() - predicted
        expected = np.where(mask, 1 / (mask.sum() + gamma * len(told) ** exponent * gap), 0.0)
        expected[mask & (gap == 0)] += 1 - expected.sum()
        assert fitted(x, mask) == pytest.approx(expected, abs=1e-9)


def test_equal_arms_are_played_equally() -> None:
    policy = SquareCB(2)
    x = np.array([0.3, -0.7])
    sums = np.zeros((4, policy.width))
    assert policy.fit(sums)(x, np.ones(4, dtype=bool)).tolist() == [0.25] * 4
    sums[1] += policy.delta(0.0, x, 1.0)
    p = policy.fit(sums)(x, np.ones(4, dtype=bool))
    assert p[0] == p[2] == p[3] > p[1]
    sums[[0, 2]] += policy.delta(1.0, x, 1.0)
    p = policy.fit(sums)(x, np.ones(4, dtype=bool))
    assert p[0] == p[2] > p[3] > p[1]


def test_exploration_fades_as_plays_add_up_and_stays_where_they_are_forgotten() -> None:
    x = np.array([0.3, -0.7, 0.1])
    policy = SquareCB(3)
    sums = learn(policy, events(3))
    few, many = (policy.fit(times * sums)(x, EVERYONE).max() for times in (1, 100))
    assert few < many
    without = SquareCB(3, exponent=0.0)
    assert without.fit(1e6 * sums)(x, EVERYONE) == pytest.approx(without.fit(1e8 * sums)(x, EVERYONE), abs=1e-3)


def test_gamma_zero_plays_all_arms_equally() -> None:
    policy = SquareCB(3, 0.0)
    assert policy.fit(learn(policy, events(3)))(np.ones(3), EVERYONE) == pytest.approx([1 / 3] * 3)


def test_predictions_beyond_the_range_of_rewards_are_compared_too() -> None:
    """Extrapolation may leave [0, 1], down to the very -1 that marks an arm on the way."""
    policy = SquareCB(1, 1.0, l2=1e-6)
    sums = np.zeros((3, policy.width))
    for arm, slope in enumerate((1.0, -1.0, 0.0)):
        for x in (-0.5, 0.0, 0.5):
            sums[arm] += 1e6 * policy.delta(0.5 + slope * x, np.array([x]), 1.0)
    up, down, level = policy.fit(sums)(np.array([1.5]), EVERYONE)  # predicted 2, -1 and .5
    gamma = np.sqrt(9e6)
    assert [down, level] == pytest.approx([1 / (3 + 3 * gamma), 1 / (3 + 1.5 * gamma)], rel=1e-4)
    assert up == pytest.approx(1 - down - level)


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"gamma": -1.0}, "gamma"),
        ({"gamma": float("nan")}, "gamma"),
        ({"gamma": float("inf")}, "gamma"),
        ({"exponent": -0.1}, "exponent"),
        ({"exponent": 1.1}, "exponent"),
        ({"exponent": float("nan")}, "exponent"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, Any], argument: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: "):
        SquareCB(2, **settings)


def test_regret_is_as_measured_before_or_less() -> None:
    """As in test_linucb.py; reference 2.8 gives 80.9 after 1000 rounds and 187 +- 15 after 10,000 with gamma = 100."""
    policy = SquareCB(10, 200.0, scale=(10**-0.5,) * 10)  # rewards are halved, and so are gaps
    once = Feedback(every=5)
    result = simulate(policy, World(), 5000, rng=np.random.default_rng(3), runs=2, feedback=once, checkpoints=(1000,))
    early, late = 2 * result.regret.mean(axis=0)
    assert 40 < early < 105
    assert late < 160
