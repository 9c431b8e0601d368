"""Logarithms of mixture supermartingales: how much was won by betting against a null hypothesis.

Each bet exp(λ s - ψ(λ) v) is fair while s, the sum of the deviations so far, has intrinsic time v under the null; the
mixture spreads the stake over λ by the conjugate prior, with the weight ρ of a time already passed. Every value here is

    n·divergence(observed, null) + ½ ln(ρ / (v + ρ)) + what Stirling's formula leaves + ln(mass of λ > 0, now / before)

the last for one-sided mixtures only. So numbers of the size of v cancel on paper, before they can round.
S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
Annals of Statistics 49 (2021): their conjugate mixtures.
"""

from __future__ import annotations

import math
from functools import partial

import numba

from bandits.kernels import kernel

F = numba.float64
number = partial(kernel, nogil=False)  # as each is too short to let the GIL go

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
PRECISION = 2.0**-50  # a few roundings


@number(F(F))
def stirling_error(x: float) -> float:
    """Logarithm of Γ(x) less Stirling's formula (x - ½) ln x - x + ½ ln 2π, for x > 0."""
    if x < 10.0:
        return math.lgamma(x) - (x - 0.5) * math.log(x) + x - HALF_LOG_2PI
    y = 1.0 / (x * x)
    return (1 / 12 - y * (1 / 360 - y * (1 / 1260 - y * (1 / 1680 - y * (1 / 1188 - y * (691 / 360360)))))) / x


@number(F(F, F, F))
def log_ratio(p: float, q: float, difference: float) -> float:
    """Logarithm of p / q, from p - q where they are near to each other: the caller may know it more exactly."""
    return math.log1p(difference / q) if abs(difference) < 0.5 * q else math.log(p / q)


@number(F(F, F))
def log_gamma_tail(a: float, x: float) -> float:
    """Logarithm of the smaller part of a Gamma(a) variable's mass: below x if x < a + 1, otherwise above x.

    The power series below, Legendre's continued fraction above; either takes about √a terms where x is near a.
    """
    edge = a * log_ratio(x, a, x - a) - (x - a) - HALF_LOG_2PI - stirling_error(a)  # ln(x^a e^-x / Γ(a)) - ½ ln a
    if x < a + 1.0:
        term = total = 1.0
        k = a
        while term > total * PRECISION:
            k += 1.0
            term *= x / k
            total += term
        return edge - 0.5 * math.log(a) + math.log(total)
    b = x + 1.0 - a  # by Lentz's method
    c = 1e300
    d = 1.0 / b
    fraction = d
    step = 0.0
    k = 0.0
    while abs(step - 1.0) > PRECISION:
        k += 1.0
        term = -k * (k - a)
        b += 2.0
        d = 1.0 / (term * d + b)
        c = term / c + b
        step = c * d
        fraction *= step
    return edge + 0.5 * math.log(a) + math.log(fraction)


@number(F(F, F))
def log_gamma_below(a: float, x: float) -> float:
    """Logarithm of the probability that a Gamma(a) variable is below x."""
    tail = log_gamma_tail(a, x)
    return tail if x < a + 1.0 else math.log1p(-math.exp(tail))


@number(F(F, F))
def log_gamma_above(a: float, x: float) -> float:
    """Logarithm of the probability that a Gamma(a) variable is above x."""
    tail = log_gamma_tail(a, x)
    return math.log1p(-math.exp(tail)) if x < a + 1.0 else tail


@number(F(F, F, F, F))
def log_beta_tail(a: float, b: float, x: float, y: float) -> float:
    """Logarithm of the probability that a Beta(a, b) variable is below x = 1 - y; quick below its mean.

    By Gauss's continued fraction for the incomplete beta function and Lentz's method.
    """
    n = a + b
    excess = a - n * x
    edge = -a * log_ratio(a, n * x, excess) - b * log_ratio(b, n * y, -excess)
    edge += 0.5 * math.log(b / (a * n)) - HALF_LOG_2PI - stirling_error(a) - stirling_error(b) + stirling_error(n)
    c = 1.0
    d = 1.0 / (1.0 - n * x / (a + 1.0))
    fraction = d
    step = 0.0
    k = 0.0
    while abs(step - 1.0) > PRECISION:
        k += 1.0
        even = k * (b - k) * x / ((a + 2.0 * k - 1.0) * (a + 2.0 * k))
        odd = -(a + k) * (n + k) * x / ((a + 2.0 * k) * (a + 2.0 * k + 1.0))
        d = 1.0 / (1.0 + even * d)
        c = 1.0 + even / c
        fraction *= c * d
        d = 1.0 / (1.0 + odd * d)
        c = 1.0 + odd / c
        step = c * d
        fraction *= step
    return edge + math.log(fraction)


@number(F(F, F, F, F))
def log_beta_below(a: float, b: float, x: float, y: float) -> float:
    """Logarithm of the probability that a Beta(a, b) variable is below x = 1 - y, both in (0, 1)."""
    if x <= (a + 1.0) / (a + b + 2.0):
        return log_beta_tail(a, b, x, y)
    return math.log1p(-math.exp(log_beta_tail(b, a, y, x)))


@number(F(F, F, F, F))
def gamma_exponential(s: float, v: float, rho: float, c: float) -> float:
    """Log evidence of sub-exponential deviations of scale c > 0 above 0; -inf at s <= -(v + ρ) / c."""
    before, now = rho / (c * c), (v + rho) / (c * c)
    moved = now + s / c
    if moved <= 0.0:
        return -math.inf
    value = s / c - now * log_ratio(moved, now, s / c) + 0.5 * math.log(before / now)
    value += stirling_error(now) - stirling_error(before)
    return value + log_gamma_below(now, moved) - log_gamma_below(before, before)


@number(F(F, F, F, F))
def gamma_poisson(s: float, v: float, rho: float, c: float) -> float:
    """Log evidence of sub-Poisson deviations of scale c > 0 above 0; -inf at s <= -(v + ρ) / c."""
    before, now = rho / (c * c), (v + rho) / (c * c)
    moved = now + s / c
    if moved <= 0.0:
        return -math.inf
    value = moved * log_ratio(moved, now, s / c) - s / c + 0.5 * math.log(before / moved)
    value += stirling_error(moved) - stirling_error(before)
    return value + log_gamma_above(moved, now) - log_gamma_above(before, before)


@number(F(F, F, F, F, F))
def beta_binomial(successes: float, failures: float, rate: float, other: float, kappa: float) -> float:
    """Log evidence that successes come at another rate than `rate` = 1 - `other`.

    The prior, whose mean is the rate, is worth `kappa` trials. -inf where its share and the count are not above 0.
    """
    before_a, before_b = kappa * rate, kappa * other
    a, b = before_a + successes, before_b + failures
    if a <= 0.0 or b <= 0.0:
        return -math.inf
    n = a + b
    excess = successes * other - failures * rate
    value = a * log_ratio(a, n * rate, excess) + b * log_ratio(b, n * other, -excess)
    value += 0.5 * math.log(before_a / a * other / b * n)
    value += stirling_error(a) + stirling_error(b) - stirling_error(n)
    return value + stirling_error(kappa) - stirling_error(before_a) - stirling_error(before_b)


@number(F(F, F, F, F, F))
def beta_binomial_above(successes: float, failures: float, rate: float, other: float, kappa: float) -> float:
    """Log evidence that successes come at a higher rate than `rate`; arguments as those of `beta_binomial`."""
    value = beta_binomial(successes, failures, rate, other, kappa)
    if value == -math.inf:
        return value
    now = log_beta_below(kappa * other + failures, kappa * rate + successes, other, rate)
    return value + now - log_beta_below(kappa * other, kappa * rate, other, rate)
