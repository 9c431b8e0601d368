"""The special functions against SciPy, and the evidence against what it has to be: a fair game under the null."""

from __future__ import annotations

from math import erf, exp, expm1, inf, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from scipy.integrate import quad

from bandits.anytime import mixtures

quick = settings(max_examples=200, deadline=None)
shapes = st.floats(-3, 4).map(lambda power: 10**power)
deviations = st.floats(-5, 5)


@given(st.floats(1e-6, 1e6))
def test_what_stirlings_formula_leaves(x: float) -> None:
    stirling = (x - 0.5) * log(x) - x + 0.5 * log(2 * np.pi)
    assert mixtures.stirling_error(x) + stirling == pytest.approx(special.gammaln(x), rel=1e-14, abs=1e-14)


@quick
@given(shapes, deviations)
def test_the_incomplete_gamma_function_is_scipys(a: float, z: float) -> None:
    x = a * exp(z / sqrt(a + 0.1))
    below, above = special.gammainc(a, x), special.gammaincc(a, x)
    assert exp(mixtures.log_gamma_below(a, x)) == pytest.approx(below, rel=1e-10)
    assert exp(mixtures.log_gamma_above(a, x)) == pytest.approx(above, rel=1e-10, abs=1e-14)


@quick
@given(shapes, shapes, deviations)
def test_the_incomplete_beta_function_is_scipys(a: float, b: float, z: float) -> None:
    x = special.expit(log(a / b) + z * sqrt(1 / a + 1 / b))
    if 1e-300 < x < 1 - 1e-9:
        assert exp(mixtures.log_beta_below(a, b, x, 1 - x)) == pytest.approx(special.betainc(a, b, x), rel=1e-9)


@pytest.mark.parametrize(
    ("a", "x", "below", "above"),
    [
        (0.02, 1e-12, -0.54140193298882050, -0.87211082333174925),
        (1e-3, 2.0, -0.000048978117239383969, -9.9241614355133140),
        (50, 500, 0, -339.94704606427337),
        (1e6, 997_000, -6.6165014673067870, -0.0013390002281325660),
        (1e6, 1_003_000, -0.0013626686575809065, -6.5989915106665515),
        (1e12, 1e12 + 3e6, -0.0013508217990101176, -6.6077174666008704),
    ],
)
def test_the_incomplete_gamma_function_where_scipy_is_too_coarse(a, x, below, above) -> None:
    """Integrated with forty digits."""
    assert mixtures.log_gamma_below(a, x) == pytest.approx(below, abs=1e-9)
    assert mixtures.log_gamma_above(a, x) == pytest.approx(above, abs=1e-9)


@pytest.mark.parametrize(
    ("a", "b", "x", "below"),
    [
        (0.01, 5, 1e-9, -0.18647011575359905),
        (20, 1e4, 5e-4, -14.860752832238677),
        (3, 4, 0.999, -1.4976010000112193e-11),
        (1e5, 2e5, 0.33, -9.8560732261159941),
        (1e6, 1e6, 0.4985, -11.413550409213788),
        (300, 7e8, 3e-7, -19.593779681592978),
    ],
)
def test_the_incomplete_beta_function_where_scipy_is_too_coarse(a, b, x, below) -> None:
    """Integrated with forty digits."""
    assert mixtures.log_beta_below(a, b, x, 1 - x) == pytest.approx(below, abs=1e-11)


# Under the null, whatever is bet is fair: the expectation of what one has is what one began with. Where deviations
# follow just the distribution that a mixture is made for, that is an equation, not an inequality.

weights = st.floats(0.5, 100)


@quick
@given(st.integers(1, 60), st.floats(0.02, 0.98), weights)
def test_the_beta_binomial_game_is_fair(n: int, rate: float, kappa: float) -> None:
    successes = np.arange(n + 1.0)
    chances = stats.binom.pmf(successes, n, rate)
    for bet in mixtures.beta_binomial, mixtures.beta_binomial_above:
        capital = [exp(bet(s, n - s, rate, 1 - rate, kappa)) for s in successes]
        assert chances @ capital == pytest.approx(1, rel=1e-9)


@quick
@given(st.integers(1, 60), st.floats(0.05, 0.95), st.floats(0.1, 1.0), weights)
def test_betting_that_a_rate_is_above_a_limit_loses_while_it_is_below(n, limit, part, kappa) -> None:
    successes = np.arange(n + 1.0)
    capital = [exp(mixtures.beta_binomial_above(s, n - s, limit, 1 - limit, kappa)) for s in successes]
    assert stats.binom.pmf(successes, n, part * limit) @ capital <= 1 + 1e-9


@pytest.mark.parametrize("events", [0.1, 3.0, 40.0])
@pytest.mark.parametrize(("c", "before"), [(0.3, 3.0), (1.0, 10.0), (4.0, 30.0)])
def test_the_gamma_poisson_game_is_fair(events: float, c: float, before: float) -> None:
    counts = np.arange(500.0)
    v, rho = events * c * c, before * c * c
    capital = np.array([mixtures.gamma_poisson(c * (k - events), v, rho, c) for k in counts])
    assert np.exp(capital + stats.poisson.logpmf(counts, events)).sum() == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("waits", [1, 7, 50])
@pytest.mark.parametrize(("c", "before"), [(0.3, 3.0), (1.0, 10.0), (4.0, 30.0)])
def test_the_gamma_exponential_game_is_fair(waits: int, c: float, before: float) -> None:
    """The sum of so many exponential variables follows a gamma distribution; integrated over its logarithm."""
    v, rho = waits * c * c, before * c * c

    def density(log_total: float) -> float:
        total = exp(log_total)
        capital = mixtures.gamma_exponential(c * (total - waits), v, rho, c)
        return exp(capital + waits * log_total - total - log_norm)

    log_norm = float(special.gammaln(waits))
    expectation, _ = quad(density, -30, 14, points=[log(waits), log(waits) + 1], limit=500)
    assert expectation == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(
    ("s", "v", "rho", "c"), [(10, 100, 15.8, 2), (-3, 5, 4, 1), (40, 100, 30, 0.5), (5, 0, 9, 2.5), (2, 1, 0.3, 1)]
)
def test_the_gamma_exponential_mixture_is_the_integral_that_defines_it(s, v, rho, c) -> None:
    """Of exp(λs - ψ(λ)v) over λ < 1/c, by the conjugate prior. In u = -ln(1 - cλ), to reach the end of the range."""

    def bet(u: float, s: float, v: float) -> float:
        share = -expm1(-u)  # cλ
        return float(share * s / c - (u - share) * v / c**2)

    prior, _ = quad(lambda u: exp(bet(u, c, rho - c * c) - u), 0, inf)
    both, _ = quad(lambda u: exp(bet(u, s + c, v + rho - c * c) - u), 0, inf)
    assert mixtures.gamma_exponential(s, v, rho, c) == pytest.approx(log(both / prior), abs=1e-7)


def test_evidence_of_billions_does_not_round_away() -> None:
    """By then it is that of a normal mixture, up to the prior's shape and about 1/√n."""
    n, rate, kappa = 1e12, 0.3, 10.0
    a, b = kappa * rate, kappa * (1 - rate)
    shape = log(special.beta(kappa * rate, kappa * (1 - rate))) - a * log(rate) - b * log(1 - rate)
    for z in -4.0, -1.0, 0.0, 2.5, 5.0:
        s = z * sqrt(n * rate * (1 - rate))
        counts = n * rate + s, n * (1 - rate) - s
        normal = 0.5 * z * z + 0.5 * log(2 * np.pi / (rate * (1 - rate) * n)) - shape
        assert mixtures.beta_binomial(*counts, rate, 1 - rate, kappa) == pytest.approx(normal, abs=1e-4)
        upper = log(0.5 * (1 + erf(z / sqrt(2))) / special.betaincc(a, b, rate))
        above = mixtures.beta_binomial_above(*counts, rate, 1 - rate, kappa)
        assert above == pytest.approx(normal + upper, abs=1e-4)


def test_what_cannot_happen_is_no_evidence() -> None:
    assert mixtures.gamma_exponential(-100.0, 10.0, 5.0, 1.0) == -inf
    assert mixtures.gamma_poisson(-100.0, 10.0, 5.0, 1.0) == -inf
    assert mixtures.beta_binomial(-20.0, 30.0, 0.5, 0.5, 10.0) == -inf
    assert mixtures.beta_binomial_above(30.0, -20.0, 0.5, 0.5, 10.0) == -inf
