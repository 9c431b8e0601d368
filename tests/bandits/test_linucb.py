from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import LinUCB
from bandits.simulate import Feedback, simulate
from bandits.worlds import Linear as World
from tests.bandits.test_linear import EVERYONE, by_numpy, events, learn


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), features=st.integers(1, 8), alpha=st.floats(0, 3))
def test_it_plays_the_arm_of_the_greatest_upper_bound(seed: int, features: int, alpha: float) -> None:
    policy = LinUCB(features, alpha)
    told = events(features, seed=seed)
    fitted = policy.fit(learn(policy, told))
    for _, _, x in events(features, number=5, seed=seed + 1):
        z = np.array([1.0, *x])
        index = np.array([theta @ z + alpha * np.sqrt(z @ inverse @ z) for theta, inverse in by_numpy(policy, told)])
        for allowed in (EVERYONE, np.arange(3) != index.argmax()):
            best = np.where(allowed, index, -np.inf).argmax()
            assert fitted(x, allowed).tolist() == np.eye(3)[best].tolist()


def test_equal_arms_are_played_equally() -> None:
    policy = LinUCB(2)
    x = np.array([0.3, -0.7])
    sums = np.zeros((4, policy.width))
    assert policy.fit(sums)(x, np.ones(4, dtype=bool)).tolist() == [0.25] * 4
    sums[3] += policy.delta(0.0, x, 1.0)
    assert policy.fit(sums)(x, np.ones(4, dtype=bool)).tolist() == [1 / 3, 1 / 3, 1 / 3, 0.0]
    assert policy.fit(sums)(x, np.array([True, False, True, True])).tolist() == [0.5, 0.0, 0.5, 0.0]


def test_what_is_known_less_is_tried_where_alpha_says_so() -> None:
    """Both arms earn one half whatever is tried, and the second was seen less, above all along the first feature."""
    sums = np.zeros((2, LinUCB(2).width))
    for arm, context, times in (0, (1.0, 0.0), 20), (0, (0.0, 1.0), 20), (1, (1.0, 0.0), 2), (1, (0.0, 1.0), 40):
        for r in (0.5, 0.52) if arm == 0 else (0.5, 0.48):
            sums[arm] += times * LinUCB(2).delta(r, np.array(context), 1.0)
    everyone = np.ones(2, dtype=bool)
    for context, explores in ((1.0, 0.0), True), ((0.0, 1.0), False):
        assert LinUCB(2, 0.0).fit(sums)(np.array(context), everyone).tolist() == [1.0, 0.0]
        assert LinUCB(2, 0.5).fit(sums)(np.array(context), everyone)[1] == explores


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf")])
def test_alpha_is_finite_and_not_below_zero(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^alpha: "):
        LinUCB(2, wrong)


def test_regret_is_as_measured_before_and_stops_growing() -> None:
    """K = d = 10, on the unit sphere, noise .1 against rewards in [-1, 1], as in reference 2.8: 50.5 after 1000 rounds
    and 58.6 +- 1.3 after 10,000 with alpha = .3. Here rewards are halved, and so are alpha and the regret.
    """
    policy = LinUCB(10, 0.15, scale=(10**-0.5,) * 10)
    once = Feedback(every=5)
    result = simulate(policy, World(), 5000, rng=np.random.default_rng(3), runs=2, feedback=once, checkpoints=(1000,))
    early, late = 2 * result.regret.mean(axis=0)
    assert 30 < early < 75
    assert late < 1.4 * early
