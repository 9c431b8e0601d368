"""The difference of two arms' mean rewards, or the value of one arm, out of the rows that `scores` adds up.

`difference` is the one to show: an asymptotic confidence sequence, as narrow as a central limit theorem allows. It is
right only in the limit, so it says nothing before a hundred decisions and twenty plays of each arm.
`bounded_difference` is right at every n, and wider.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bandits.anytime.boundaries import GammaExponentialMixture, NormalMixture, prior_weight
from bandits.anytime.scores import TERMS, Matrix
from bandits.policy import Vector

FEWEST = 100
"""Decisions before an asymptotic interval is shown."""

FEWEST_PLAYS = 20
"""Plays of each arm, before the same."""

ROUNDING = 1e-12
"""A variance below this share of the mean square may be rounding and no more."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Treatment less control: the effect seen, and the interval in which the true one is at all times with 1 - alpha.

    While nothing is known, the interval is all that there is, and the evidence none.
    """

    n: float
    """Decisions."""

    effect: float
    low: float
    high: float

    log_evidence: float
    """Natural logarithm of the e-value against "no difference": at least ln 1/alpha where the interval leaves out 0."""

    @property
    def p_value(self) -> float:
        """Valid whenever one looks: while there is no difference, it ever falls to a with probability a at most."""
        return math.exp(-max(0.0, self.log_evidence))


def difference(row: ArrayLike, *, alpha: float = 0.05, tightest_at: float = 1000.0) -> Difference:
    """Judge a row of summed terms, shape [7], by the asymptotic confidence sequence, tightest near n = `tightest_at`.

    The interval is (-inf, inf) before `FEWEST` decisions and `FEWEST_PLAYS` plays of each arm. Raises ValueError for a
    row that no terms sum to, and for settings outside their ranges.
    """
    rows = _rows(np.asarray(row)[np.newaxis])
    (low,), (high,) = difference_sequence(rows, alpha=alpha, tightest_at=tightest_at)
    n, total = float(rows[0, 0]), float(rows[0, 1])
    effect = total / n if n else 0.0
    if low == -math.inf:
        return Difference(n, effect, -math.inf, math.inf, 0.0)
    sigma = math.sqrt(_variance(rows)[0])
    return Difference(
        n, effect, float(low), float(high), NormalMixture(tightest_at, alpha).log_evidence(total / sigma, n)
    )


def difference_sequence(rows: ArrayLike, *, alpha: float = 0.05, tightest_at: float = 1000.0) -> tuple[Vector, Vector]:
    """Return low and high of the interval of each row, shape [rows, 7]: of the terms' running sum, the sequence."""
    sums = _rows(rows)
    n, total = sums[:, 0], sums[:, 1]
    known = (n >= FEWEST) & (sums[:, 5:].min(axis=1) >= FEWEST_PLAYS)
    low, high = np.full(len(sums), -np.inf), np.full(len(sums), np.inf)
    n, total, sigma = n[known], total[known], np.sqrt(_variance(sums[known]))
    radius = asymptotic_radius(n, sigma, alpha=alpha, tightest_at=tightest_at)
    low[known], high[known] = total / n - radius, total / n + radius
    return low, high


def asymptotic_interval(
    n: float, total: float, squares: float, *, alpha: float = 0.05, tightest_at: float = 1000.0
) -> tuple[float, float]:
    """Low and high of the mean of n scores from their sum and the sum of their squares.

    For scores of any scale from decisions that are all alike, such as the differences of pairs. It is (-inf, inf) for
    fewer than `FEWEST`, and while all are equal. Raises ValueError for sums that cannot be.
    """
    if not (0.0 <= n < math.inf and total * total <= n * squares * (1.0 + ROUNDING) < math.inf):
        raise ValueError("n, total and squares: must be the number, sum and sum of squares of finite scores")
    prior_weight(tightest_at, alpha, one_sided=False)  # refuses what cannot be, also while n is small
    if n < FEWEST:
        return -math.inf, math.inf
    mean = total / n
    variance = squares / n - mean * mean
    if variance <= ROUNDING * squares / n:
        return -math.inf, math.inf
    radius = float(asymptotic_radius(n, math.sqrt(variance), alpha=alpha, tightest_at=tightest_at))
    return mean - radius, mean + radius


def asymptotic_radius(n: ArrayLike, sigma: ArrayLike, *, alpha: float = 0.05, tightest_at: float = 1000.0) -> Vector:
    """Half the width of the interval after each of n > 0 scores of standard deviation sigma; any shapes that broadcast.

    σ√(2(nρ² + 1)/(n²ρ²) · ln(√(nρ² + 1)/α)): the boundary of the mixture of normals, with σ estimated.
    I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy, A. Ramdas, "Time-uniform central limit theory and asymptotic
    confidence sequences", Annals of Statistics 52 (2024), theorem 2.2. Raises ValueError unless 0 < alpha < 1 and
    tightest_at > 0.
    """
    n = np.asarray(n, dtype=np.float64)
    weight = prior_weight(tightest_at, alpha, one_sided=False)  # 1/ρ²
    radius: Vector = np.asarray(sigma) * np.sqrt((n + weight) * (np.log1p(n / weight) - 2.0 * math.log(alpha))) / n
    return radius


def bounded_difference(
    row: ArrayLike, *, least_propensity: float, alpha: float = 0.05, tightest_at: float = 1000.0
) -> Difference:
    """Judge a row of summed terms, shape [7], without asymptotics: rewards and predictions in [0, 1] are all it needs.

    `least_propensity` is a floor under that of either arm, at every decision; no confidence is possible without one.
    The gamma-exponential mixture is tightest where the residuals' squares sum to `tightest_at`: in n decisions, to
    n·noise·(1/p_a + 1/p_b), where noise is the variance of a reward about its prediction. S. R. Howard, A. Ramdas,
    J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49
    (2021), corollary 2. Raises ValueError for a row that no terms sum to, and for settings outside their ranges.
    """
    if not 0.0 < least_propensity <= 1.0:
        raise ValueError(f"least_propensity: must be above 0 and up to 1, got {least_propensity}")
    mixture = GammaExponentialMixture(tightest_at, 2.0 / least_propensity, alpha / 2.0)
    n, total, _, residuals = (float(number) for number in _rows(np.asarray(row)[np.newaxis])[0, :4])
    if n == 0.0:
        return Difference(0.0, 0.0, -1.0, 1.0, 0.0)
    effect, radius = total / n, mixture.boundary(residuals) / n
    ahead, behind = mixture.log_evidence(total, residuals), mixture.log_evidence(-total, residuals)
    evidence = float(np.logaddexp(ahead, behind)) - math.log(2.0)
    return Difference(n, effect, max(-1.0, effect - radius), min(1.0, effect + radius), evidence)


def _rows(rows: ArrayLike) -> Matrix:
    sums = np.asarray(rows, dtype=np.float64)
    if sums.ndim != 2 or sums.shape[1] != TERMS or not np.isfinite(sums).all():
        raise ValueError(f"row: must be the sum of terms, {TERMS} finite numbers")
    n, total, squares = sums[:, 0], sums[:, 1], sums[:, 2]
    slack = ROUNDING * (1.0 + n * squares)
    if (sums[:, [0, 2, 3, 4, 5, 6]] < 0.0).any() or (total * total > n * squares + slack).any():
        raise ValueError("row: no terms sum to this, of which the squares and counts would be below 0")
    return sums


def _variance(sums: Matrix) -> Vector:
    """Per decision, of rows with n > 0: the greater one of what the scores show and what was foreseen for them."""
    n, total, squares, foreseen = sums[:, 0], sums[:, 1], sums[:, 2], sums[:, 4]
    variance: Vector = np.maximum(squares / n - (total / n) ** 2, foreseen / n)
    return variance
