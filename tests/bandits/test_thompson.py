"""Exact Thompson sampling, against published vectors, SciPy's integrals and a measured regret."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from bandits import Thompson, sampler
from bandits.beta import probability_best

Pair = tuple[float, float]


def best(*posteriors: Pair) -> np.ndarray:
    a, b = np.array(posteriors, dtype=float).T
    return probability_best(np.ascontiguousarray(a), np.ascontiguousarray(b))


def by_scipy(*posteriors: Pair, points: int = 10_000) -> np.ndarray:
    """The same integral by the trapezoidal rule over the log-odds, with SciPy's incomplete beta function."""
    a, b = np.array(posteriors, dtype=float).T[:, :, None]
    reach = 9 * np.sqrt(1 / a + 1 / b) + 40 / np.minimum(a, b)
    mode = np.log(a / b)
    t, h = np.linspace((mode - reach).max(), (mode + reach).max(), points, retstep=True)
    f = np.exp(a * special.log_expit(t) + b * special.log_expit(-t) - special.betaln(a, b))
    F = np.where(t < 0, special.betainc(a, b, special.expit(t)), special.betaincc(b, a, special.expit(-t)))
    F = np.maximum(F, 1e-300)
    p: np.ndarray = h * np.sum(f * F.prod(axis=0) / F, axis=1)
    return p


@pytest.mark.parametrize(
    ("posteriors", "expected"),
    [
        ([(10, 20), (12, 18)], 0.7073158208),
        ([(81, 19), (90, 10)], 0.9675032220),
        ([(101, 901), (121, 881)], 0.9231834390),
        ([(1001, 9001), (1101, 8901)], 0.9894573545),
    ],
)
def test_two_arms_of_published_vectors(posteriors: list[Pair], expected: float) -> None:
    assert best(*posteriors) == pytest.approx([1 - expected, expected], abs=1e-10)


def test_three_arms_of_published_vectors() -> None:
    assert best((3, 7), (5, 5), (8, 2)) == pytest.approx([0.00513332, 0.06449189, 0.93037479], abs=5e-9)


def closed_form(a1: int, b1: int, a2: int, b2: int) -> float:
    """P(second > first) for whole parameters: a finite sum (Evan Miller, "Formulas for Bayesian A/B testing")."""
    i = np.arange(a2)
    return float(
        np.sum(
            np.exp(
                special.betaln(a1 + i, b1 + b2) - np.log(b2 + i) - special.betaln(1 + i, b2) - special.betaln(a1, b1)
            )
        )
    )


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.integers(1, 400)] * 4))
def test_two_arms_agree_with_the_closed_form(whole: tuple[int, int, int, int]) -> None:
    a1, b1, a2, b2 = whole
    assert best((a1, b1), (a2, b2))[1] == pytest.approx(closed_form(a1, b1, a2, b2), abs=1e-10)


counts = st.one_of(st.sampled_from([0.5, 1.0, 2.0]), st.floats(0.5, 3000))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(counts, counts), min_size=2, max_size=6))
def test_any_arms_agree_with_scipy(posteriors: list[Pair]) -> None:
    assert best(*posteriors) == pytest.approx(by_scipy(*posteriors), abs=1e-9)


def test_the_vaguest_priors_agree_with_scipy() -> None:
    posteriors = [(0.1, 0.1), (0.1, 5), (0.2, 3), (4, 0.1)]
    assert best(*posteriors) == pytest.approx(by_scipy(*posteriors), abs=1e-9)


def test_a_million_plays_agree_with_scipy() -> None:
    posteriors = [(1e6, 1e6), (1.001e6, 1e6), (5e5, 5.005e5), (20, 19)]
    assert best(*posteriors) == pytest.approx(by_scipy(*posteriors, points=20_000), abs=1e-9)


@pytest.mark.parametrize(
    "posteriors",
    [
        [(1e15, 1e15), (1e15, 1e15)],
        [(0.1, 9e15), (9e15, 0.1)],
        [(0.5, 0.5), (1e6, 1e6), (9e15, 1.0)],
        [(0.1, 0.1)] * 100,
        [(1.0, 9e15), (2.0, 9e15), (1.0, 1.0)],
        [(1.0, 1.0)] * 500,
    ],
)
def test_extremes_stay_probabilities(posteriors: list[Pair]) -> None:
    p = best(*posteriors)
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("arms", [2, 3, 10, 100])
@pytest.mark.parametrize("posterior", [(0.1, 0.1), (0.5, 0.5), (0.5, 1e6), (1, 1), (3, 400), (1e6, 1e6)])
def test_equal_arms_are_equally_likely(arms: int, posterior: Pair) -> None:
    assert best(*[posterior] * arms) == pytest.approx([1 / arms] * arms, abs=1e-11)


def test_a_hundred_unequal_arms_agree_with_scipy() -> None:
    rng = np.random.default_rng(3)
    plays = 10 ** rng.uniform(0, 4, 100)
    rates = rng.beta(2, 5, 100)
    posteriors = [(1 + n * rate, 1 + n * (1 - rate)) for n, rate in zip(plays, rates, strict=True)]
    assert best(*posteriors) == pytest.approx(by_scipy(*posteriors, points=6_000), abs=1e-9)


def test_the_prior_is_added_to_what_was_learnt() -> None:
    sums = np.array([(28, 9, 9), (28, 11, 11)], dtype=float)
    p = Thompson(alpha=1, beta=1).fit(sums)(None, np.ones(2, dtype=bool))
    assert p[1] == pytest.approx(best((10, 20), (12, 18))[1], abs=1e-12)
    p = Thompson(alpha=2, beta=5).fit(sums)(None, np.ones(2, dtype=bool))
    assert p[1] == pytest.approx(best((11, 24), (13, 22))[1], abs=1e-12)


def test_forbidden_arms_do_not_compete() -> None:
    sums = np.array([(28, 9, 9), (1000, 990, 990), (28, 11, 11)], dtype=float)
    p = Thompson().fit(sums)(None, np.array([True, False, True]))
    assert p == pytest.approx([1 - 0.7073158208, 0, 0.7073158208], abs=1e-9)


@pytest.mark.parametrize("wrong", [0.0, -1.0, 0.01, math.nan, math.inf])
def test_a_prior_outside_its_range_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^alpha: "):
        Thompson(alpha=wrong)
    with pytest.raises(ValueError, match=r"^beta: "):
        Thompson(beta=wrong)


def test_more_plays_than_float64_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^sums: arm 1 .*2\^53"):
        Thompson().fit(np.array([(1, 0, 0), (1e17, 0, 0)], dtype=float))


def test_mean_regret_is_that_of_thompson_sampling() -> None:
    """Three arms of .9, .8 and .7 over 1000 rounds: 11.08 ± .17 by 3000 runs of a plain sampler."""
    rates = np.array([0.9, 0.8, 0.7])
    rng = np.random.default_rng(20)
    policy, draw, everyone = Thompson(), sampler("regret", ["a", "b", "c"]), np.ones(3, dtype=bool)
    regrets = []
    for run in range(40):
        sums = np.zeros((3, policy.width))
        for round_, luck in enumerate(rng.random(1000)):
            p = policy.fit(sums)(None, everyone)
            arm = draw(p, f"{run}-{round_}")
            sums[arm] += policy.delta(float(luck < rates[arm]), None, p[arm])
        regrets.append(sums[:, 0] @ (rates.max() - rates))
    error = math.hypot(np.std(regrets) / math.sqrt(len(regrets)), 0.17)
    assert np.mean(regrets) == pytest.approx(11.08, abs=4 * error)
