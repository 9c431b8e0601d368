"""Curves that a sum of deviations crosses, at any time at all, with probability at most alpha.

A deviation is an observation less its mean under the null hypothesis; their sum s has the intrinsic time v, which grows
with their variance. A mixture's boundary is where its evidence against the null reaches 1 / alpha: tightest near one
intrinsic time of choice.
S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
Annals of Statistics 49 (2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from bandits.anytime import mixtures
from bandits.kernels import direct

_gamma_exponential = direct(mixtures.gamma_exponential)
_gamma_poisson = direct(mixtures.gamma_poisson)
_beta_binomial = direct(mixtures.beta_binomial)
_beta_binomial_above = direct(mixtures.beta_binomial_above)

NATS = 1e-12
"""Evidence this near to a threshold has reached it."""

EPSILON = 2.0**-52
"""Rounding of float64."""


class Mixture(Protocol):
    """A nonnegative supermartingale under the null: 1 at first, and ever at 1 / alpha with probability alpha at most.

    Each is a frozen value, made with the intrinsic time `tightest_at`, in the unit of v, near which its boundary is
    tightest. Raises ValueError for a parameter that is not positive, and for an alpha outside (0, 1), or (0, ½) where
    it is one-sided.
    """

    def log_evidence(self, s: float, v: float) -> float:
        """Natural logarithm of its value when the deviations sum to s at the intrinsic time v.

        Raises ValueError unless s is finite, v too, and v >= 0.
        """

    def boundary(self, v: float) -> float:
        """The s >= 0 at which the evidence reaches 1 / alpha. Raises ValueError unless v is finite and not below 0."""


@dataclass(frozen=True, slots=True)
class NormalMixture:
    """For sub-Gaussian deviations, E exp(λ deviation) <= exp(λ²σ²/2), whose σ² sum to v. Two-sided it bounds |s|."""

    tightest_at: float
    alpha: float = 0.05
    one_sided: bool = False
    rho: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", prior_weight(self.tightest_at, self.alpha, one_sided=self.one_sided))

    def log_evidence(self, s: float, v: float) -> float:
        _check(s, v)
        total = v + self.rho
        evidence = 0.5 * math.log(self.rho / total) + s * s / (2.0 * total)
        return evidence + _log_twice_normal(s / math.sqrt(total)) if self.one_sided else evidence

    def boundary(self, v: float) -> float:
        _check(0.0, v)
        two_sided = math.sqrt((v + self.rho) * (math.log1p(v / self.rho) - 2.0 * math.log(self.alpha)))
        return _where_reached(self, v, self.alpha, two_sided) if self.one_sided else two_sided


@dataclass(frozen=True, slots=True)
class GammaExponentialMixture:
    """For deviations with the tail of an exponential variable of scale c > 0: bounds s from above.

    Such are those of observations in an interval of length c, where v sums the squares of what was observed less what
    had been predicted: the empirical Bernstein bound.
    """

    tightest_at: float
    c: float
    alpha: float = 0.05
    rho: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", prior_weight(self.tightest_at, self.alpha, one_sided=True))
        check_positive("c", self.c)

    def log_evidence(self, s: float, v: float) -> float:
        _check(s, v)
        return _gamma_exponential(s, v, self.rho, self.c)

    def boundary(self, v: float) -> float:
        _check(0.0, v)
        return _where_reached(self, v, self.alpha, math.sqrt(v + self.rho))


@dataclass(frozen=True, slots=True)
class GammaPoissonMixture:
    """For deviations with the tail of a Poisson variable of scale c > 0: bounds s from above.

    Such are deviations of at most c whose variances sum to v: Bennett's inequality.
    """

    tightest_at: float
    c: float
    alpha: float = 0.05
    rho: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", prior_weight(self.tightest_at, self.alpha, one_sided=True))
        check_positive("c", self.c)

    def log_evidence(self, s: float, v: float) -> float:
        _check(s, v)
        return _gamma_poisson(s, v, self.rho, self.c)

    def boundary(self, v: float) -> float:
        _check(0.0, v)
        return _where_reached(self, v, self.alpha, math.sqrt(v + self.rho))


@dataclass(frozen=True, slots=True)
class BetaBinomialMixture:
    """For deviations from -g to h, of which n have the intrinsic time v = n·g·h: bounds s from above, by v / g at most.

    Two-sided, it bounds s from below too: by minus the boundary of the mixture with g and h exchanged.
    """

    tightest_at: float
    g: float
    h: float
    alpha: float = 0.05
    one_sided: bool = False
    kappa: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_positive("g", self.g)
        check_positive("h", self.h)
        rho = prior_weight(self.tightest_at, self.alpha, one_sided=self.one_sided)
        object.__setattr__(self, "kappa", max(rho / (self.g * self.h) - 1.0, 1e-3))

    def log_evidence(self, s: float, v: float) -> float:
        _check(s, v)
        width = self.g + self.h
        successes = (v / self.h + s) / width
        failures = (v / self.g - s) / width
        evidence = _beta_binomial_above if self.one_sided else _beta_binomial
        return evidence(successes, failures, self.g / width, self.h / width, self.kappa)

    def boundary(self, v: float) -> float:
        _check(0.0, v)
        return _where_reached(self, v, self.alpha, math.sqrt(v), most=v / self.g)


def prior_weight(tightest_at: float, alpha: float, *, one_sided: bool) -> float:
    """The ρ of the mixture that is tightest near the intrinsic time `tightest_at`: that much time has already passed.

    Raises ValueError unless tightest_at is positive and alpha in (0, 1), for one side in (0, ½).
    """
    check_positive("tightest_at", tightest_at)
    most = 0.5 if one_sided else 1.0
    if not 0.0 < alpha < most:
        raise ValueError(f"alpha: must lie between 0 and {most:g}, got {alpha}")
    twice = -2.0 * math.log(2.0 * alpha if one_sided else alpha)
    return tightest_at / (twice + math.log1p(twice))


def crossing(f: Callable[[float], float], below: float, above: float) -> float:
    """Where f crosses zero, between a point where it is below and one where it is above. About eight calls of f.

    By inverse quadratic interpolation where that can be trusted, otherwise by halving: T. R. Chandrupatla, "A new
    hybrid quadratic/bisection algorithm for finding the zero of a nonlinear function without using derivatives",
    Advances in Engineering Software 28 (1997).
    """
    new, other = below, above
    f_new, f_other = f(new), f(other)
    share = f_new / (f_new - f_other)
    smallest = EPSILON * abs(above - below)
    while True:
        old, f_old = new, f_new
        new += share * (other - new)
        f_new = f(new)
        if abs(f_new) < NATS:
            return new
        if (f_new > 0.0) != (f_old > 0.0):
            old, other, f_old, f_other = other, old, f_other, f_old
        least = 2.0 * EPSILON * (abs(new) + smallest) / abs(other - new)
        if least > 0.5:
            return new
        x = (new - other) / (old - other)
        y = (f_new - f_other) / (f_old - f_other)
        share = 0.5
        if y * y < x and (1.0 - y) * (1.0 - y) < 1.0 - x:
            share = f_new / (f_other - f_new) * f_old / (f_other - f_old)
            share += (old - new) / (other - new) * f_new / (f_old - f_new) * f_other / (f_old - f_other)
        share = min(max(share, least), 1.0 - least)


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless the value is positive and finite."""
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name}: must be a positive number, got {value}")


def _check(s: float, v: float) -> None:
    if not -math.inf < s < math.inf:
        raise ValueError(f"s: must be a finite number, got {s}")
    if not 0.0 <= v < math.inf:
        raise ValueError(f"v: an intrinsic time is finite and not below 0, got {v}")


def _where_reached(mixture: Mixture, v: float, alpha: float, start: float, most: float = math.inf) -> float:
    def missing(s: float) -> float:
        return mixture.log_evidence(s, v) + math.log(alpha)

    outside = min(start, most)
    while missing(outside) < 0.0:
        if outside == most:
            return most
        outside = min(2.0 * outside, most)
    return crossing(missing, 0.0, outside)


def _log_twice_normal(z: float) -> float:
    """Logarithm of 2Φ(z)."""
    if z > -30.0:
        return math.log(math.erfc(-z / math.sqrt(2.0)))
    y = 1.0 / (z * z)
    return -0.5 * z * z - math.log(-z * math.sqrt(math.pi / 2.0)) + math.log1p(-y * (1.0 - 3.0 * y * (1.0 - 5.0 * y)))
