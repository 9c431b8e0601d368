"""Intervals that stay valid while people peek: at all times at once, however often one looks, whenever one stops."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, lgamma, log

MOST = 1e12  # trials: beyond, lgamma rounds off more than the interval can bear

_STEPS = 60  # halvings: beyond float64's resolution of a probability


def rate_interval(
    successes: float, n: float, *, alpha: float = 0.05, tightest_at: float = 100.0
) -> tuple[float, float]:
    """Low and high of the confidence sequence of a rate, from counts that merge by addition.

    Over all n together it misses the true rate with probability at most `alpha`, also when the trials were chosen
    adaptively. It is tightest near n = `tightest_at`. (0, 1) when n is 0. The two-sided beta-binomial mixture of
    Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences" (2021).
    Raises ValueError for counts that cannot be.
    """
    if not 0.0 <= successes <= n <= MOST:
        raise ValueError(f"successes and n: expected 0 <= successes <= n <= {MOST:g}, got {successes} and {n}")
    if not (0.0 < alpha < 1.0 and 0.0 < tightest_at <= MOST):
        raise ValueError(f"alpha must be in (0, 1) and tightest_at in (0, {MOST:g}], got {alpha} and {tightest_at}")
    if n == 0:
        return 0.0, 1.0

    def excluded(rate: float) -> bool:
        return _log_evidence(rate, successes, n - successes, alpha, tightest_at) > log(1 / alpha)

    observed = successes / n
    low = 0.0 if successes == 0 else _edge(excluded, 0.0, observed)
    high = 1.0 if successes == n else _edge(excluded, 1.0, observed)
    return low, high


def _log_evidence(rate: float, successes: float, failures: float, alpha: float, tightest_at: float) -> float:
    """Log of the mixture supermartingale against `rate`: grows without bound when the rate is another."""
    g, h = rate, 1.0 - rate
    if g <= 0.0 or h <= 0.0:
        return inf
    twice = 2.0 * log(1 / alpha)
    rho = max(g * h * tightest_at / (twice + log(1.0 + twice)) - g * h, 1e-3 * g * h)
    a, b = rho / g, rho / h
    return _log_beta(a + failures, b + successes) - _log_beta(a, b) - successes * log(g) - failures * log(h)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _edge(excluded: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where a rate begins to be excluded, between one that is and one that is not."""
    if not excluded(outside + (inside - outside) * 2.0**-_STEPS):
        return outside
    for _ in range(_STEPS):
        middle = (outside + inside) / 2.0
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return inside
