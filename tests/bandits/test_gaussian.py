"""Gaussian Thompson sampling, against closed forms, SciPy's distribution functions and exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from bandits import Policy, Thompson
from bandits.gaussian import GaussianThompson
from bandits.student import probability_best

Student = tuple[float, float, float]


def best(*students: Student) -> np.ndarray:
    """Each of (location, scale, degrees of freedom)."""
    return probability_best(*np.array(list(zip(*students, strict=True)), dtype=float))


def by_scipy(*students: Student) -> np.ndarray:
    """The same integral on a finer and wider grid, with SciPy's distribution function."""
    mean, scale, nu = np.array(students, dtype=float).T[:, :, None]
    w = np.linspace(-1, 1, 121) * np.sqrt(nu) * np.arcsinh(np.sqrt(np.expm1(68 / nu)))
    edges = np.unique(mean + scale * np.sqrt(nu) * np.sinh(w / np.sqrt(nu)))
    x, weights = np.polynomial.legendre.leggauss(8)
    t = (edges[:-1, None] + np.diff(edges)[:, None] * (x + 1) / 2).ravel()
    h = (np.diff(edges)[:, None] * weights / 2).ravel()
    z = (t - mean) / scale
    log_f = special.gammaln(nu / 2 + 0.5) - special.gammaln(nu / 2) - np.log(nu * np.pi) / 2 - np.log(scale)
    f = np.exp(log_f - (nu + 1) / 2 * np.log1p(z**2 / nu))
    F = special.stdtr(nu, z)
    return np.array([np.sum(h * f[k] * np.delete(F, k, axis=0).prod(axis=0)) for k in range(len(students))])


def test_without_end_of_plays_two_arms_are_gaussian() -> None:
    """P = Φ((μ1 - μ2) / sqrt(s1² + s2²)): the reference's vector."""
    p = best((0.1, 0.05, 2.0**53), (0.0, 0.1, 2.0**53))
    assert p == pytest.approx([0.8144533152, 1 - 0.8144533152], abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(1e-4, 1), st.floats(1e-4, 1))
def test_two_cauchy_variables_have_a_closed_form(m1: float, m2: float, s1: float, s2: float) -> None:
    """The heaviest tails: the difference of two is a third one."""
    assert best((m1, s1, 1), (m2, s2, 1))[0] == pytest.approx(
        0.5 + math.atan((m1 - m2) / (s1 + s2)) / math.pi, abs=1e-9
    )


students = st.tuples(
    st.floats(0, 1),
    st.floats(-4, 0).map(lambda x: 10**x),
    st.one_of(st.sampled_from([1.0, 2.0]), st.floats(0, 5).map(lambda x: 10**x)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(students, min_size=2, max_size=6))
def test_any_arms_agree_with_scipy(arms: list[Student]) -> None:
    assert best(*arms) == pytest.approx(by_scipy(*arms), abs=1e-9)


@pytest.mark.parametrize("arms", [10, 20])
@pytest.mark.parametrize("freedom", [1.0, 2.0, 30.0])
def test_many_arms_agree_with_scipy(arms: int, freedom: float) -> None:
    """Some never tried, some often."""
    rng = np.random.default_rng(arms)
    n = np.where(rng.random(arms) < 0.3, 0.0, 10 ** rng.uniform(0, 5, arms)).round()
    mean, scale = rng.beta(5, 4, arms), np.sqrt(rng.uniform(0.01, 0.3, arms) / (1 + n))
    all_of_them = list(zip(mean, scale, freedom + n, strict=True))
    assert best(*all_of_them) == pytest.approx(by_scipy(*all_of_them), abs=1e-9)


@pytest.mark.parametrize("arms", [2, 3, 10, 100])
@pytest.mark.parametrize("student", [(0.5, 0.3, 1), (0.5, 0.3, 2), (0.9, 1e-6, 1000), (0.1, 1e-15, 2.0**53)])
def test_equal_arms_are_equally_likely(arms: int, student: Student) -> None:
    assert best(*[student] * arms) == pytest.approx([1 / arms] * arms, abs=1e-11)


@pytest.mark.parametrize(
    "arms",
    [
        [(0.5, 0.3, 1)],
        [(0.0, 1e-15, 2.0**53), (1.0, 1e-15, 2.0**53)],
        [(0.3, 1e-15, 1), (0.3 + 1e-15, 1e-15, 2.0**53), (0.9, 1e7, 1)],
        [(0.5, 1e7, 2.0**53), (0.5, 1e-15, 1)],
        [(k / 300, 1e-5, 400.0) for k in range(300)],
        [(0.5, 0.3, 1)] * 300,
    ],
)
def test_extremes_stay_probabilities(arms: list[Student]) -> None:
    p = best(*arms)
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1, abs=1e-9)


# What is learnt


def learn(policy: Policy, *rewards: list[float]) -> np.ndarray:
    return np.array([sum((policy.delta(r, None, 1.0) for r in arm), np.zeros(3)) for arm in rewards])


rewards_of_an_arm = st.lists(st.floats(0, 1), max_size=30)


@settings(max_examples=60, deadline=None)
@given(rewards_of_an_arm, rewards_of_an_arm)
def test_the_posterior_is_the_prior_of_what_comes_next(before: list[float], after: list[float]) -> None:
    prior = GaussianThompson(mu=0.3, kappa=2.0, alpha=1.5, beta=0.2)
    (mean,), (scale,), (freedom,) = prior.posterior(learn(prior, before))
    alpha, kappa = freedom / 2, prior.kappa + len(before)
    then = GaussianThompson(mu=mean, kappa=kappa, alpha=alpha, beta=scale**2 * alpha * kappa)
    both = prior.posterior(learn(prior, before + after))
    for ours, theirs in zip(then.posterior(learn(prior, after)), both, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_a_small_spread_survives_the_subtraction() -> None:
    """Rewards of .999 with a deviation of 1e-5, in exact fractions."""
    rewards = [0.999 + 1e-5 * (-1) ** i for i in range(1000)]
    policy = GaussianThompson(beta=1e-6)
    _, (scale,), _ = policy.posterior(learn(policy, rewards))
    exact = [Fraction(r) for r in rewards]
    n, total = len(exact), sum(exact)
    kappa = 1 + n
    mean = (total + Fraction(1, 2)) / kappa
    beta = Fraction(1e-6) + (sum(r * r for r in exact) + Fraction(1, 4) - kappa * mean**2) / 2
    assert scale == pytest.approx(math.sqrt(beta / ((1 + Fraction(n, 2)) * kappa)), rel=1e-9)


def test_the_probabilities_are_those_of_the_means_posteriors() -> None:
    policy = GaussianThompson()
    sums = learn(policy, [0.4, 0.5, 0.45, 0.55], [0.6, 0.3], [])
    p = policy.fit(sums)(None, np.ones(3, dtype=bool))
    assert p == pytest.approx(by_scipy(*zip(*policy.posterior(sums), strict=True)), abs=1e-9)
    p = policy.fit(sums)(None, np.array([True, False, True]))
    first, _, last = zip(*policy.posterior(sums), strict=True)
    assert p[[0, 2]] == pytest.approx(by_scipy(first, last), abs=1e-9)


def test_an_arm_of_less_spread_needs_fewer_rewards() -> None:
    """Means of .6 and .5 after 20 rewards each, near their means or far from them."""
    near = [learn(GaussianThompson(), [m - 0.01, m + 0.01] * 10) for m in (0.6, 0.5)]
    far = [learn(GaussianThompson(), [m - 0.4, m + 0.4] * 10) for m in (0.6, 0.5)]
    everyone = np.ones(2, dtype=bool)
    assert GaussianThompson().fit(np.vstack(near))(None, everyone)[0] > 0.98
    assert GaussianThompson().fit(np.vstack(far))(None, everyone)[0] < 0.8
    assert Thompson().fit(np.vstack(near))(None, everyone)[0] < 0.8


def test_rewards_that_never_vary_are_legal() -> None:
    for n in (1.0, 1e6, 1e15):
        sums = np.array([(n, n, n), (n, 0.25 * n, 0.0625 * n), (n, 0.0, 0.0)])
        p = GaussianThompson().fit(sums)(None, np.ones(3, dtype=bool))
        assert p[0] == max(p)
        assert p.sum() == pytest.approx(1, abs=1e-12)


def test_regret_is_a_fraction_of_thompsons_where_rewards_spread_little() -> None:
    means, everyone = np.array([0.5, 0.48, 0.45]), np.ones(3, dtype=bool)

    def regret(policy: Policy) -> float:
        rng = np.random.default_rng(4)
        lost = 0.0
        for _ in range(10):
            sums = np.zeros((3, 3))
            for _batch in range(50):
                p = policy.fit(sums)(None, everyone)
                for arm in rng.choice(3, 10, p=p):
                    sums[arm] += policy.delta(float(np.clip(rng.normal(means[arm], 0.05), 0, 1)), None, 1.0)
            lost += sums[:, 0] @ (means.max() - means)
        return lost

    assert regret(GaussianThompson()) < regret(Thompson()) / 2


# What is refused


@pytest.mark.parametrize(
    "wrong",
    [
        {"mu": -0.1},
        {"mu": 1.1},
        {"kappa": 0.0},
        {"alpha": 0.4},
        {"beta": 0.0},
        *[{name: value} for name in ("mu", "kappa", "alpha", "beta") for value in (math.nan, math.inf)],
    ],
    ids=str,
)
def test_a_prior_outside_its_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
        GaussianThompson(**wrong)


@pytest.mark.parametrize("row", [(-1, 0, 0), (1, 2, 4), (4, 2, 0.9), (4, 2, 2.1), (4, 0, -1)])
def test_sums_that_no_rewards_can_make_are_refused(row: Student) -> None:
    with pytest.raises(ValueError, match=r"^sums: .*arm 1"):
        GaussianThompson().fit(np.array([(1.0, 0.5, 0.25), row]))


def test_more_plays_than_float64_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^sums: arm 1 .*2\^53"):
        GaussianThompson().fit(np.array([(1, 0, 0), (1e17, 0, 0)], dtype=float))
