from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy import special
from scipy.stats import chisquare, norm

from bandits import LinearThompson, Vector
from bandits.linear_thompson import NODES, probability_best
from bandits.simulate import Feedback, simulate
from bandits.worlds import Linear as World
from tests.bandits.test_linear import EVERYONE, by_numpy, events, learn


def best(mean: ArrayLike, deviation: ArrayLike) -> Vector:
    K = np.size(mean)
    p = np.full(K, np.nan)
    probability_best(np.array(mean, float), np.array(deviation, float), np.full(NODES * (K + 1) + K, np.nan), p)
    return p


def by_scipy(mean: Vector, deviation: Vector) -> Vector:
    """The same integral with SciPy's distribution function, 20 nodes for each half of the narrowest deviation."""
    x, w = np.polynomial.legendre.leggauss(20)
    t, end = (mean - 9 * deviation).max(), (mean + 9 * deviation).max()
    p = np.zeros(len(mean))
    while t < end:
        width = 0.5 * deviation[mean + 9 * deviation > t].min()
        z = ((t + width * (x + 1) / 2)[:, None] - mean) / deviation
        log_F = special.log_ndtr(z)
        p += w * width / 2 @ np.exp(norm.logpdf(z) - np.log(deviation) + log_F.sum(axis=1)[:, None] - log_F)
        t += width
    assert p.sum() == pytest.approx(1, abs=1e-11)
    return p


def test_two_arms_of_a_published_vector() -> None:
    assert best([0.1, 0.0], [0.05, 0.1]) == pytest.approx([0.8144533152, 0.1855466848], abs=2e-7)


@settings(max_examples=200, deadline=None)
@given(
    gap=st.floats(-20, 20),
    one=st.floats(-6, 6).map(lambda power: 10.0**power),
    other=st.floats(-6, 6).map(lambda power: 10.0**power),
)
def test_two_arms_have_a_closed_form(gap: float, one: float, other: float) -> None:
    difference = gap * np.hypot(one, other) / 4
    expected = norm.cdf(difference / np.hypot(one, other))
    assert best([difference, 0.0], [one, other]) == pytest.approx([expected, 1 - expected], abs=1e-6)


@pytest.mark.parametrize("arms", [2, 3, 5, 20, 100])
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 3.0])
def test_the_error_is_below_a_millionth_however_means_and_deviations_differ(arms: int, spread: float) -> None:
    rng = np.random.default_rng(arms)
    for apart in (0.03, 0.3, 1.0, 3.0, 10.0):
        mean, deviation = apart * rng.normal(size=arms), np.exp(spread * rng.normal(size=arms))
        p = best(mean, deviation)
        assert p == pytest.approx(by_scipy(mean, deviation), abs=1e-6)
        assert p.sum() == pytest.approx(1, abs=1e-12)


def test_a_hump_may_end_just_where_another_begins() -> None:
    """Whether one is still integrated is a matter of the last bit here, and must be decided once."""
    rng = np.random.default_rng(0)
    for mean, deviation in zip(rng.uniform(-1, 1, 3000), 10.0 ** rng.uniform(-4, 0, 3000), strict=True):
        higher = mean + 10 * deviation
        assert best([mean, higher], [deviation, deviation]) == pytest.approx([0, 1], abs=1e-6)
        assert best([mean, higher, higher], [deviation] * 3) == pytest.approx([0, 0.5, 0.5], abs=1e-6)


def test_equal_arms_are_played_equally() -> None:
    for K in (1, 2, 7, 100):
        assert best(np.full(K, 0.3), np.full(K, 0.02)) == pytest.approx(np.full(K, 1 / K), abs=1e-14)
    p = best([0.5, 0.4, 0.5], [0.1, 0.1, 0.1])
    assert p[0] == p[2] > p[1]


def test_an_arm_of_no_mean_is_never_the_best() -> None:
    p = best([0.5, -np.inf, 0.4], [0.1, 1.0, 0.1])
    assert p[1] == 0
    assert p[[0, 2]] == pytest.approx(best([0.5, 0.4], [0.1, 0.1]), abs=1e-12)


def test_an_arm_far_below_is_not_played() -> None:
    assert best([0.5, 0.4, 0.2], [0.01, 0.2, 0.01])[2] == 0.0


@pytest.mark.parametrize(
    "constants", [{}, {"mean": (0.2, -0.1, 1.0), "scale": (2.0, 0.5, 1.0)}], ids=["plain", "scaled"]
)
def test_p_is_how_often_drawn_weights_make_an_arm_the_best(constants: dict[str, Any]) -> None:
    """The textbook draws a vector of weights for each arm; its product with one context is a Gaussian number."""
    policy = LinearThompson(3, 0.3, **constants)
    told = events(3, number=30, seed=4)
    x = np.array([0.5, -0.3, 0.8])
    p = policy.fit(learn(policy, told))(x, EVERYONE)
    rng = np.random.default_rng(1)
    z = np.array([1.0, *((x - (policy.mean or 0.0)) / (policy.scale or 1.0))])
    drawn = [rng.multivariate_normal(theta, 0.3**2 * inverse, 50_000) @ z for theta, inverse in by_numpy(policy, told)]
    times = np.bincount(np.argmax(drawn, axis=0), minlength=3)
    assert times.min() > 1000
    assert chisquare(times, p * times.sum()).pvalue > 1e-3


@pytest.mark.parametrize("allowed", [[True, True, True], [True, False, True], [False, True, True]])
def test_p_is_the_integral_over_the_allowed_arms(allowed: list[bool]) -> None:
    policy = LinearThompson(4, 0.1)
    told = events(4)
    mask = np.array(allowed)
    for _, _, x in events(4, number=10, seed=1):
        z = np.array([1.0, *x])
        moments = np.array([(theta @ z, 0.1 * np.sqrt(z @ inverse @ z)) for theta, inverse in by_numpy(policy, told)])
        p = policy.fit(learn(policy, told))(x, mask)
        assert p[mask] == pytest.approx(by_scipy(*moments[mask].T), abs=1e-6)
        assert (p[~mask] == 0).all()


@pytest.mark.parametrize("v", [1e-6, 0.05, 1e6])
def test_of_any_breadth_it_stays_a_distribution(v: float) -> None:
    policy = LinearThompson(3, v)
    for plays in (1.0, 1e6, 1e15, 1e40):
        fitted = policy.fit(plays * learn(policy, events(3)))
        for context in (np.zeros(3), np.full(3, 1e9), np.array([1e9, -1.0, 1e-9])):
            p = fitted(context, EVERYONE)
            assert (p >= 0).all()
            assert p.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("wrong", [0.0, -0.1, float("nan"), float("inf")])
def test_v_is_finite_and_above_zero(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^v: "):
        LinearThompson(2, wrong)


def test_regret_is_as_measured_before_and_slows_down() -> None:
    """As in test_linucb.py; reference 2.8 gives 65 after 1000 rounds and 94.5 +- 9 after 10,000 with v = .1."""
    policy = LinearThompson(10, 0.05, scale=(10**-0.5,) * 10)
    once = Feedback(every=5)
    result = simulate(policy, World(), 5000, rng=np.random.default_rng(3), runs=2, feedback=once, checkpoints=(1000,))
    early, late = 2 * result.regret.mean(axis=0)
    assert 40 < early < 95
    assert late < 1.7 * early
