"""The mean of observations in [0, 1], from their sequence: sharp where they vary less than a coin of that mean does.

What is promised holds at all times at once, whatever the distributions, as long as the expectation of an observation,
given those before it, is always the same. Each end of an interval alone misses with probability alpha / 2 at most: for
a limit on one side only, give twice its alpha and read that end.
I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting", Journal of the Royal Statistical
Society B 86 (2024).
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import ArrayLike

from bandits.anytime.boundaries import crossing
from bandits.kernels import VECTOR, direct, kernel
from bandits.policy import Vector

WIDTH = 7
"""The state: t, Σx, Σ(x - μ̂)², Σλ, Σλx, and Σψ(λ)(x - m)² as seen from 0 and from 1."""

BOLDEST = 0.5
"""The part of what can be lost that is ever bet."""


@kernel(numba.float64(numba.float64[::1], numba.float64, numba.float64), nogil=False)
def advance(state: Vector, x: float, nats: float) -> float:
    """Add the observation x to the state, and return the bet λ that was made before it, without a limit.

    nats is ln(2 / alpha), what either side has to win. m is the plain mean so far; before the first observation each
    side takes its own end of the range, as the authors' library does. Any other prediction would be as valid.
    """
    before = state[0]
    t = before + 1.0
    variance = (0.25 + state[2]) / t
    wish = math.sqrt(2.0 * nats / (variance * t * math.log1p(t)))
    bet = min(wish, BOLDEST)
    cost = -math.log1p(-bet) - bet
    mean = state[1] / before if before > 0.0 else 0.0
    from_above = mean if before > 0.0 else 1.0
    state[0] = t
    state[1] += x
    state[2] += (x - (0.5 + state[1]) / (t + 1.0)) ** 2
    state[3] += bet
    state[4] += bet * x
    state[5] += cost * (x - mean) ** 2
    state[6] += cost * (x - from_above) ** 2
    return wish


@kernel(numba.void(VECTOR, numba.float64, numba.float64[::1], numba.float64[::1]))
def empirical_bernstein(xs: Vector, nats: float, low: Vector, high: Vector) -> None:
    """Fill in the interval after each of the observations."""
    state = np.zeros(WIDTH)
    for i in range(len(xs)):
        advance(state, xs[i], nats)
        low[i] = max(0.0, (state[4] - nats - state[5]) / state[3])
        high[i] = min(1.0, (state[4] + nats + state[6]) / state[3])


@kernel(numba.float64[::1](VECTOR, numba.float64))
def bets(xs: Vector, nats: float) -> Vector:
    """Return the bet before each observation, without a limit."""
    state = np.zeros(WIDTH)
    wishes = np.empty(len(xs))
    for i in range(len(xs)):
        wishes[i] = advance(state, xs[i], nats)
    return wishes


@kernel(numba.float64(VECTOR, VECTOR, numba.float64))
def log_capital(xs: Vector, wishes: Vector, mean: float) -> float:
    """Logarithm of what is left of 1 after betting at each step that the observation is above `mean`."""
    total = 0.0
    for i in range(len(xs)):
        bet = min(wishes[i], BOLDEST / mean) if mean > 0.0 else wishes[i]
        total += math.log1p(bet * (xs[i] - mean))
    return total


_advance = direct(advance)


class EmpiricalBernstein:
    """The interval of `mean_interval`, kept up to date as observations come. For one thread at a time."""

    __slots__ = ("_nats", "_state")

    def __init__(self, *, alpha: float = 0.05) -> None:
        """Raise ValueError for an alpha outside (0, 1)."""
        self._nats = _nats(alpha)
        self._state = np.zeros(WIDTH)

    def add(self, x: float) -> None:
        """One more observation. Raises ValueError unless it lies in [0, 1]."""
        if not 0.0 <= x <= 1.0:
            raise ValueError("x: must be a number from 0 to 1")
        _advance(self._state, x, self._nats)

    def interval(self) -> tuple[float, float]:
        """Low and high of the mean: (0, 1) before the first observation."""
        t, _, _, bet, won, below, above = self._state.tolist()
        if not t:
            return 0.0, 1.0
        return max(0.0, (won - self._nats - below) / bet), min(1.0, (won + self._nats + above) / bet)


def mean_interval(xs: ArrayLike, *, alpha: float = 0.05) -> tuple[float, float]:
    """Low and high of the mean after all of the observations; (0, 1) when there are none. See `mean_sequence`."""
    low, high = mean_sequence(xs, alpha=alpha)
    return (float(low[-1]), float(high[-1])) if len(low) else (0.0, 1.0)


def mean_sequence(xs: ArrayLike, *, alpha: float = 0.05) -> tuple[Vector, Vector]:
    """Low and high of the mean after each of the observations, both of shape [n], in one pass.

    The predictable plug-in empirical-Bernstein confidence sequence (theorem 2 of Waudby-Smith and Ramdas): all n
    intervals together miss with probability alpha at most. They need not lie in each other; if they shall, take
    `numpy.maximum.accumulate(low)` and `numpy.minimum.accumulate(high)`, which are as valid. Raises ValueError for an
    observation outside [0, 1] and an alpha outside (0, 1).
    """
    nats = _nats(alpha)
    observed = _observations(xs)
    low, high = np.empty(len(observed)), np.empty(len(observed))
    empirical_bernstein(observed, nats, low, high)
    return low, high


def hoeffding_sequence(xs: ArrayLike, *, alpha: float = 0.05) -> tuple[Vector, Vector]:
    """What `mean_sequence` would be without looking at the variance; to compare. Same arguments, shapes and errors."""
    nats = _nats(alpha)
    observed = _observations(xs)
    t = np.arange(1.0, len(observed) + 1.0)
    bet = np.minimum(np.sqrt(8.0 * nats / (t * np.log1p(t))), 1.0)
    staked = np.cumsum(bet)
    centre = np.cumsum(bet * observed) / staked
    radius = (nats + np.cumsum(bet * bet) / 8.0) / staked
    return np.maximum(centre - radius, 0.0), np.minimum(centre + radius, 1.0)


def betting_interval(xs: ArrayLike, *, alpha: float = 0.05) -> tuple[float, float]:
    """Low and high of the mean after all of the observations, by betting: narrower for few, and slower to work out.

    The means against which neither of two gamblers has won 2 / alpha times his stake: one bets that the observations
    are above it, the other below (the hedged capital of Waudby-Smith and Ramdas, section 4). The capital of the one
    falls in the mean and that of the other rises, so the ends are found exactly, by about ten passes each; no grid.
    (0, 1) when there are no observations, and when no mean is left because it was not always the same. Raises
    ValueError for an observation outside [0, 1] and an alpha outside (0, 1).
    """
    nats = _nats(alpha)
    observed = _observations(xs)
    low, high = _least_mean(observed, nats), 1.0 - _least_mean(1.0 - observed, nats)
    return (low, high) if low <= high else (0.0, 1.0)


def _least_mean(xs: Vector, nats: float) -> float:
    wishes = bets(xs, nats)

    def won(mean: float) -> float:
        return log_capital(xs, wishes, mean) - nats

    return crossing(won, 1.0, 0.0) if won(0.0) > 0.0 else 0.0


def _nats(alpha: float) -> float:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha: must lie between 0 and 1, got {alpha}")
    return math.log(2.0 / alpha)


def _observations(xs: ArrayLike) -> Vector:
    observed = np.ascontiguousarray(xs, dtype=np.float64)
    if observed.ndim != 1:
        raise ValueError(f"xs: must be one sequence of numbers, not of shape {list(observed.shape)}")
    outside = np.flatnonzero(~((observed >= 0.0) & (observed <= 1.0)))
    if outside.size:
        raise ValueError(f"xs: observation {outside[0]} must be a number from 0 to 1")
    return observed
