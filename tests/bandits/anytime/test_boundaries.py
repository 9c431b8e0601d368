from __future__ import annotations

from math import exp, expm1, inf, log, log1p, nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr
from scipy.stats import binom

from bandits.anytime.boundaries import (
    BetaBinomialMixture,
    GammaExponentialMixture,
    GammaPoissonMixture,
    Mixture,
    NormalMixture,
    crossing,
    prior_weight,
)
from tests.bandits.anytime.coins import ever_outside

# What is published: the targets of confseq's own tests, from an implementation in R. All with alpha = 0.05.


def test_the_published_weight_of_the_prior() -> None:
    assert prior_weight(100, 0.05, one_sided=False) == pytest.approx(12.60056, abs=1e-5)
    assert prior_weight(100, 0.05, one_sided=True) == prior_weight(100, 0.1, one_sided=False)


@pytest.mark.parametrize(
    ("mixture", "evidence", "boundary"),
    [
        (NormalMixture(100), -0.6510052, 30.35209),
        (NormalMixture(100, one_sided=True), -0.06502391, 27.66071),
        (GammaExponentialMixture(100, c=2), -0.2490165, 33.02017),
        (GammaPoissonMixture(100, c=2), -0.06991219, 30.1949),
        (BetaBinomialMixture(100, g=0.2, h=0.8), -0.6941012, 31.4308),
        (BetaBinomialMixture(100, g=0.2, h=0.8, one_sided=True), -0.07134019, 28.41238),
    ],
    ids=str,
)
def test_published_values_of_mixtures(mixture: Mixture, evidence: float, boundary: float) -> None:
    assert mixture.log_evidence(10, 100) == pytest.approx(evidence, abs=1e-7)
    assert mixture.boundary(100) == pytest.approx(boundary, abs=1e-5)


def test_the_published_limit_of_what_can_happen() -> None:
    """Two observations cannot deviate by more than both being the greatest."""
    mixture = BetaBinomialMixture(100, g=0.2, h=0.8, one_sided=True)
    assert mixture.boundary(2 * 0.2 * 0.8) == pytest.approx(2 * 0.8, abs=1e-12)


@pytest.mark.parametrize(("n", "radius"), [(1_000, 0.095982), (10_000, 0.032417)])
def test_the_published_radius_of_a_difference(n: int, radius: float) -> None:
    """Reference 6.3: the asymptotic confidence sequence is the normal mixture, tightest at 1000."""
    assert NormalMixture(1_000).boundary(n) / n == pytest.approx(radius, abs=1e-6)
    assert 1 / NormalMixture(1_000).rho == pytest.approx(0.00793615, abs=1e-8)


# What follows from what they are

alphas = st.floats(1e-6, 0.49)
times = st.floats(-2, 7).map(lambda power: 10**power)
kinds = st.sampled_from(
    [
        NormalMixture,
        lambda at, alpha: NormalMixture(at, alpha, one_sided=True),
        lambda at, alpha: GammaExponentialMixture(at, 0.7, alpha),
        lambda at, alpha: GammaPoissonMixture(at, 1.3, alpha),
        lambda at, alpha: BetaBinomialMixture(at, 0.3, 0.7, alpha),
        lambda at, alpha: BetaBinomialMixture(at, 2.0, 0.5, alpha, one_sided=True),
    ]
)


@settings(max_examples=200, deadline=None)
@given(kinds, times, alphas, times)
def test_a_boundary_is_where_the_evidence_is_enough(kind, tightest_at, alpha, v) -> None:
    mixture: Mixture = kind(tightest_at, alpha)
    s = mixture.boundary(v)
    assert s > 0
    evidence = mixture.log_evidence(s, v)
    if isinstance(mixture, BetaBinomialMixture) and s == v / mixture.g:
        assert evidence <= -log(alpha)  # nothing that can happen is enough
    else:
        assert evidence == pytest.approx(-log(alpha), abs=1e-6)
        assert mixture.log_evidence(0.99 * s, v) < evidence


@settings(max_examples=100, deadline=None)
@given(kinds, times, alphas, times)
def test_boundaries_rise_with_time(kind, tightest_at, alpha, v) -> None:
    mixture: Mixture = kind(tightest_at, alpha)
    assert mixture.boundary(1.01 * v) >= mixture.boundary(v) * (1 - 1e-9)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("v", [10.0, 1e3, 1e5])
def test_a_mixture_is_tightest_near_where_it_was_told_to_be(v: float, one_sided: bool) -> None:
    here = NormalMixture(v, one_sided=one_sided).boundary(v)
    for factor in 0.1, 0.5, 2, 10:
        assert here < 1.0005 * NormalMixture(factor * v, one_sided=one_sided).boundary(v)
    for factor in 0.01, 100:
        assert 1.02 * here < NormalMixture(factor * v, one_sided=one_sided).boundary(v)


@pytest.mark.parametrize(
    "mixture",
    [
        GammaExponentialMixture(1e4, c=1e-3),
        GammaPoissonMixture(1e4, c=1e-3),
        BetaBinomialMixture(1e4, g=1e-3, h=1e-3, one_sided=True),
    ],
    ids=str,
)
def test_where_single_observations_do_not_matter_all_are_normal(mixture: Mixture) -> None:
    assert mixture.boundary(1e4) == pytest.approx(NormalMixture(1e4, one_sided=True).boundary(1e4), rel=1e-3)


def test_a_two_sided_boundary_below_is_the_mirrored_one() -> None:
    mixture, mirrored = BetaBinomialMixture(50, 0.1, 0.9), BetaBinomialMixture(50, 0.9, 0.1)
    below = -mirrored.boundary(80)
    assert mixture.log_evidence(below, 80) == pytest.approx(log(20), abs=1e-9)


@pytest.mark.parametrize("z", [-1e3, -40, -31, -29.9, -5, 0, 8])
def test_one_sided_evidence_from_far_below(z: float) -> None:
    mixture = NormalMixture(100, one_sided=True)
    total = 100 + mixture.rho
    expected = 0.5 * log(mixture.rho / total) + z * z / 2 + log(2) + log_ndtr(z)
    assert mixture.log_evidence(z * sqrt(total), 100) == pytest.approx(expected, abs=1e-8 * max(1, z * z))


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_coins_cross_a_boundary_no_more_often_than_promised_exactly(rate: float) -> None:
    mixture = BetaBinomialMixture(50 * rate * (1 - rate), rate, 1 - rate, one_sided=True)
    n = np.arange(1001.0)
    reached = np.array([rate * k + mixture.boundary(rate * (1 - rate) * k) * (1 + 1e-12) for k in n.tolist()])
    assert 0.02 < ever_outside(rate, 0 * n, reached) <= 0.05
    one_look = np.where(n < 50, n, binom.ppf(0.95, n, rate))
    assert ever_outside(rate, 0 * n, one_look) > 0.15


def test_where_a_function_crosses_zero_is_found_in_few_steps() -> None:
    calls = 0

    def f(x: float) -> float:
        nonlocal calls
        calls += 1
        return log1p(x) ** 3 + x - 5

    x = crossing(f, 0.0, 100.0)
    assert calls <= 15
    assert abs(f(x)) < 1e-9
    assert crossing(lambda x: exp(-x) - 0.5, 30.0, 0.0) == pytest.approx(log(2), abs=1e-11)


@settings(max_examples=200, deadline=None)
@given(st.floats(-50, 50), st.floats(-8, 8), st.booleans())
def test_a_crossing_is_found_however_bent_the_function(root: float, bend: float, rising: bool) -> None:
    calls = 0

    def f(x: float) -> float:
        nonlocal calls
        calls += 1
        value = expm1(bend * (x - root)) / bend if abs(bend) > 1e-3 else x - root
        return value if rising else -value

    start, end = root - 43.0, root + 31.0
    assert crossing(f, *(start, end) if rising else (end, start)) == pytest.approx(root, abs=1e-9)
    assert calls <= 100


def test_a_jump_is_a_crossing_too() -> None:
    assert crossing(lambda x: 1.0 if x > 0.3 else -1.0, 0.0, 1.0) == pytest.approx(0.3, abs=1e-15)
    assert crossing(lambda x: 1.0 if x > 0.0 else -1.0, -1.0, 2.0) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("wrong", [0, -1, nan, inf])
def test_impossible_parameters_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^tightest_at: "):
        NormalMixture(wrong)
    with pytest.raises(ValueError, match=r"^c: "):
        GammaExponentialMixture(100, wrong)
    with pytest.raises(ValueError, match=r"^c: "):
        GammaPoissonMixture(100, wrong)
    with pytest.raises(ValueError, match=r"^g: "):
        BetaBinomialMixture(100, wrong, 0.5)
    with pytest.raises(ValueError, match=r"^h: "):
        BetaBinomialMixture(100, 0.5, wrong)


@pytest.mark.parametrize("wrong", [0, 1, -0.1, nan])
def test_impossible_error_rates_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^alpha: must lie between 0 and 1, got"):
        NormalMixture(100, wrong)
    with pytest.raises(ValueError, match=r"^alpha: must lie between 0 and 0.5, got"):
        GammaPoissonMixture(100, 1, max(wrong, 0.5))


@pytest.mark.parametrize(
    "mixture",
    [
        NormalMixture(9),
        NormalMixture(9, one_sided=True),
        GammaExponentialMixture(9, 1),
        GammaPoissonMixture(9, 1),
        BetaBinomialMixture(9, 1, 1),
    ],
    ids=str,
)
def test_impossible_times_are_refused(mixture: Mixture) -> None:
    for v in (-1.0, nan, inf):
        with pytest.raises(ValueError, match=r"^v: "):
            mixture.boundary(v)
        with pytest.raises(ValueError, match=r"^v: "):
            mixture.log_evidence(0.0, v)
    for s in (nan, inf, -inf):
        with pytest.raises(ValueError, match=r"^s: "):
            mixture.log_evidence(s, 1.0)
    assert mixture.boundary(0.0) >= 0.0


def test_the_mixture_sequential_ratio_test_is_the_same_evidence() -> None:
    """Johari's, for a difference of .1 after 1000 plays of each arm, with variance 1 and prior variance .01."""
    plays, difference, variance, prior = 1000, 0.1, 1.0, 0.01
    mixture = NormalMixture(100)
    object.__setattr__(mixture, "rho", 4 * variance**2 / prior)
    evidence = mixture.log_evidence(plays * difference, 2 * variance * plays)
    assert exp(evidence) == pytest.approx(3.27872, abs=1e-5)
    assert exp(-evidence) == pytest.approx(0.305, abs=1e-3)
