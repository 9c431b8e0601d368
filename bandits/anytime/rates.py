"""A rate, or the mean of observations in [0, 1], from two numbers that merge by addition: successes and trials.

By the beta-binomial mixture of S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric,
nonasymptotic confidence sequences", Annals of Statistics 49 (2021). What is promised holds over all n together, however
often one looks and whenever one stops, also when the trials were dealt out adaptively. Successes need not be whole:
an observation x in [0, 1] counts as x of a success, which is safe, and wasteful where the x vary little: see `means`.
"""

from __future__ import annotations

import math

from bandits.anytime import mixtures
from bandits.anytime.boundaries import crossing, prior_weight
from bandits.kernels import direct

MOST = 2.0**53
"""Trials: beyond, float64 cannot count."""

LEAST = -700.0
"""Log-odds of a rate that float64 can tell from 0."""

_evidence = direct(mixtures.beta_binomial)
_evidence_above = direct(mixtures.beta_binomial_above)


def rate_interval(
    successes: float, n: float, *, alpha: float = 0.05, tightest_at: float = 100.0
) -> tuple[float, float]:
    """Low and high of the confidence sequence of a rate: over all n together it misses with probability alpha at most.

    It is tightest near n = `tightest_at`, and (0, 1) when n is 0. Either end alone misses with probability alpha at
    most too. Raises ValueError for counts that cannot be.
    """
    kappa = _prior(successes, n, alpha, tightest_at, one_sided=False)
    failures = n - successes
    low = _lowest(successes, failures, alpha, kappa)
    high = -_lowest(failures, successes, alpha, kappa)
    return 1.0 / (1.0 + math.exp(-low)), 1.0 / (1.0 + math.exp(-high))


def log_evidence(rate: float, successes: float, n: float, *, alpha: float = 0.05, tightest_at: float = 100.0) -> float:
    """Natural logarithm of the evidence that the true rate is another: `rate_interval` is where it is below ln 1/alpha.

    An e-value: whatever the n, under the rate it ever reaches ln 1/a with probability a at most, for any a; `alpha`
    and `tightest_at` only say where it shall be sharpest. Raises ValueError unless 0 < rate < 1, and for counts that
    cannot be.
    """
    kappa = _prior(successes, n, alpha, tightest_at, one_sided=False)
    _check_rate("rate", rate)
    return _evidence(successes, n - successes, rate, 1.0 - rate, kappa)


def log_evidence_above(
    limit: float, successes: float, n: float, *, alpha: float = 0.01, tightest_at: float = 100.0
) -> float:
    """Natural logarithm of the evidence that the true rate is above `limit`: an alarm is due at ln 1/alpha.

    An e-value: while the rate is at most the limit, it ever reaches ln 1/a with probability a at most, for any a;
    `alpha` and `tightest_at` only say where it shall be sharpest. That of a rate below a limit is
    `log_evidence_above(1 - limit, n - successes, n)`. Raises ValueError unless 0 < limit < 1 and alpha < ½, and for
    counts that cannot be.
    """
    kappa = _prior(successes, n, alpha, tightest_at, one_sided=True)
    _check_rate("limit", limit)
    return _evidence_above(successes, n - successes, limit, 1.0 - limit, kappa)


def _prior(successes: float, n: float, alpha: float, tightest_at: float, *, one_sided: bool) -> float:
    """How many trials the prior is worth, once the arguments are found to be possible."""
    if not 0.0 <= successes <= n <= MOST:
        raise ValueError(f"successes and n: expected 0 <= successes <= n <= {MOST:g}, got {successes} and {n}")
    return max(prior_weight(tightest_at, alpha, one_sided=one_sided) - 1.0, 1e-3)


def _check_rate(name: str, rate: float) -> None:
    if not 0.0 < rate < 1.0:
        raise ValueError(f"{name}: must lie between 0 and 1, got {rate}")


def _lowest(successes: float, failures: float, alpha: float, kappa: float) -> float:
    """Log-odds of the lowest rate that is not excluded: in log-odds the evidence is nearly a parabola."""
    if successes == 0.0:
        return -math.inf
    needed = -math.log(alpha)
    few = min(0.5, 0.5 * needed)  # with so few more of either, the rate is not excluded: the evidence is below `few`

    def excess(log_odds: float) -> float:
        odds = math.exp(log_odds)
        return _evidence(successes, failures, odds / (1.0 + odds), 1.0 / (1.0 + odds), kappa) - needed

    inside = math.log((successes + few) / (failures + few))
    step = 4.0 * math.sqrt(1.0 / (successes + few) + 1.0 / (failures + few))
    outside = inside - step
    while excess(outside) < 0.0:
        step *= 2.0
        outside -= step
        if outside < LEAST:
            return -math.inf
    return crossing(excess, inside, outside)
