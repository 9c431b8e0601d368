"""Boundaries put together from epochs, which grow as little as the law of the iterated logarithm allows.

Each epoch is ETA times as long as the one before and is given its part of alpha, in proportion to k^-S for the k-th.
S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
Annals of Statistics 49 (2021); those for quantiles: S. R. Howard, A. Ramdas, "Sequential estimation of quantiles with
applications to A/B testing and best-arm identification", Bernoulli 28 (2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from bandits.anytime.boundaries import crossing

ETA = 2.0
S = 1.4
ZETA = 3.1055472779775810  # Riemann's zeta function at S
DELTA = 0.5  # half the step between the log-odds of the quantiles that are stitched
A = 0.85  # of the empirical process; above 1/√2, which the law of the iterated logarithm asks for


def stitched_boundary(v: float, *, start: float, alpha: float = 0.05, c: float = 0.0) -> float:
    """How far sub-gamma deviations of scale c, which may be negative, may sum at the intrinsic time v.

    About √(v ln ln v) from the intrinsic time `start`, until which it stays as it is there. Raises ValueError unless
    v >= 0, start > 0, 0 < alpha < 1, and all are finite.
    """
    v = _later("v", v, start, alpha)
    if not abs(c) < math.inf:
        raise ValueError(f"c: must be a finite number, got {c}")
    return _bernstein(v, S * math.log(math.log(ETA * v / start)) + math.log(ZETA / (alpha * math.log(ETA) ** S)), c)


def double_stitched_boundary(p: float, t: float, *, start: float, alpha: float = 0.05) -> float:
    """How far the count below the p-quantile, of t observations, may exceed t·p: at all times and for all p at once.

    Stitched over time, from t = `start` on, and over the log-odds of p. Raises ValueError unless 0 < p < 1, t >= 0,
    start > 0, 0 < alpha < 1, and all are finite.
    """
    t = _later("t", t, start, alpha)
    if not 0.0 < p < 1.0:
        raise ValueError(f"p: must lie between 0 and 1, got {p}")
    log_odds = math.log(p / (1.0 - p))
    reach = 2.0 * DELTA * math.sqrt(ETA * start / t)
    worst = max(p, min(0.5, 1.0 / (1.0 + math.exp(-log_odds - reach))))
    v = t * worst * (1.0 - worst)
    place = 1.0 + abs(log_odds) / (2.0 * DELTA) * math.sqrt(t / start)
    nats = S * math.log(place * math.log(ETA * t / start))
    nats += math.log(2.0 * ZETA * (2.0 * ZETA + 1.0) / (alpha * math.log(ETA) ** S))
    return DELTA * math.sqrt(ETA * v / start) + _bernstein(v, nats, (1.0 - 2.0 * p) / 3.0)


def empirical_process_boundary(t: float, *, start: float, alpha: float = 0.05) -> float:
    """How far the empirical distribution function of t observations may be from the true one, wherever that is.

    A√((ln(1 + ln(t / start)) + C) / t), at all times t >= start; infinite before. Raises ValueError unless t >= 0,
    start > 0, 0 < alpha < 1, and all are finite.
    """
    since = math.log(_later("t", t, start, alpha) / start)
    return A * math.sqrt((math.log1p(since) + empirical_process_constant(alpha)) / t) if t >= start else math.inf


@lru_cache(maxsize=64)
def empirical_process_constant(alpha: float) -> float:
    """The C of `empirical_process_boundary`: the least that keeps within alpha, for the best ratio of its epochs."""

    def log_error(C: float, ratio: float) -> float:
        squared = 2.0 / ratio * (A - math.sqrt(2.0 * (ratio - 1.0) / C)) ** 2
        return math.log(4.0) - squared * C + math.log1p(1.0 / ((squared - 1.0) * math.log(ratio)))

    def excess(C: float) -> float:
        def beyond(ratio: float) -> float:
            return math.sqrt(ratio / 2.0) + math.sqrt(2.0 * (ratio - 1.0) / C) - A

        return _least(lambda ratio: log_error(C, ratio), 1.0, crossing(beyond, 1.0, 2.0 * A * A)) - math.log(alpha)

    little = 1.0
    while excess(2.0 * little) >= 0.0:
        little *= 2.0
    return crossing(excess, 2.0 * little, little)


def _bernstein(v: float, nats: float, c: float) -> float:
    """The line that is best in the middle of an epoch, as it is at the epoch's ends."""
    linear = c * (math.sqrt(ETA) + 1.0) / 2.0 * nats
    return linear + math.sqrt((ETA**0.25 + ETA**-0.25) ** 2 / 2.0 * v * nats + linear * linear)


def _later(name: str, time: float, start: float, alpha: float) -> float:
    if not 0.0 <= time < math.inf:
        raise ValueError(f"{name}: must be a finite number not below 0, got {time}")
    if not 0.0 < start < math.inf:
        raise ValueError(f"start: must be a positive number, got {start}")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha: must lie between 0 and 1, got {alpha}")
    return max(time, start)


def _least(f: Callable[[float], float], start: float, end: float) -> float:
    """The least value of f, which falls and then rises between start and end: by golden section."""
    share = (math.sqrt(5.0) - 1.0) / 2.0
    left, right = end - share * (end - start), start + share * (end - start)
    f_left, f_right = f(left), f(right)
    for _ in range(50):
        if f_left < f_right:
            end, right, f_right = right, left, f_left
            left = end - share * (end - start)
            f_left = f(left)
        else:
            start, left, f_left = left, right, f_right
            right = start + share * (end - start)
            f_right = f(right)
    return min(f_left, f_right)
