"""Sample-ratio mismatch (SRM), sequentially: whether the arms were drawn as the log says.

If not, no other statistic is worth much. Wrong propensities, lost logs and joins that lose one arm's rewards all show.
For rewards, ask the same of the decisions that got one: while an answer's coming does not depend on the arm, the arms
of these are still drawn by p.

Evidence is the natural logarithm of an e-value: if all is well, it ever reaches ln 1/alpha with probability alpha at
most, however often one looks. An alarm at alpha = 0.001 is due at 6.91.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandits.anytime import mixtures
from bandits.anytime.boundaries import GammaPoissonMixture
from bandits.kernels import direct, kernel
from bandits.policy import Vector

Matrix: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]

TEMPERS = (0.5, 0.9, 1.1, 2.0)
"""Powers of the odds that are bet on: the arms were drawn more evenly than the log says, or less."""

WIDTH = 5 + len(TEMPERS)
"""Numbers for an arm: decisions that might have drawn it, Σ1{A=a}, Σp, Σp(1 - p), Σ1{A=a}/p, and ln of each bet won."""

LEAST = 1e-300
"""A probability below is none: its inverse would not be a number."""

LOWEST = -700.0  # log-odds, near where exp overflows

_MATRIX = numba.types.Array(numba.float64, 2, "C", readonly=True)
_INDICES = numba.types.Array(numba.int64, 1, "C", readonly=True)

_stirling_error = direct(mixtures.stirling_error)


def split_evidence(counts: ArrayLike, weights: ArrayLike, *, concentration: float = 1000.0) -> float:
    """Evidence that units were not split among arms in proportion to fixed weights, both of shape [K].

    Dirichlet-multinomial: the alternative has the prior Dirichlet(concentration · weights), so the greater the
    concentration, the smaller the departures that are sought first. Infinite once an arm of weight 0 has a count.
    M. Lindon, A. Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022. Raises ValueError for
    shapes that differ and numbers that are not finite or below 0.
    """
    n_k, w = np.asarray(counts, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    for name, numbers in ("counts", n_k), ("weights", w):
        if numbers.ndim != 1 or not ((numbers >= 0.0) & (numbers < math.inf)).all():
            raise ValueError(f"{name}: must be a vector of finite numbers, none below 0")
    if n_k.shape != w.shape or not w.sum() > 0.0:
        raise ValueError(f"weights: must be {len(n_k)}, as the counts, with one above 0")
    if not 0.0 < concentration < math.inf:
        raise ValueError(f"concentration: must be a positive number, got {concentration}")
    if n_k[w == 0.0].any():
        return math.inf
    n_k, pi = n_k[w > 0.0], w[w > 0.0] / w.sum()
    before, n = concentration * pi, n_k.sum()
    now, total = before + n_k, concentration + n
    evidence = float(now @ np.log1p((n_k - n * pi) / (total * pi)))  # n times the divergence from the weights
    evidence += 0.5 * (math.log(total / concentration) + float(np.log(before / now).sum()))
    evidence += _stirling_error(concentration) - _stirling_error(float(total))
    return evidence + sum(
        _stirling_error(float(b)) - _stirling_error(float(a)) for a, b in zip(before, now, strict=True)
    )


@kernel(numba.int64(_MATRIX, _INDICES, numba.float64[:, ::1]))
def fill(p: Matrix, arms: Indices, rows: Matrix) -> int:
    """Add the decisions to the rows, shape [K, 9]; return the first whose arm had no probability, or -1."""
    for t in range(len(arms)):
        if p[t, arms[t]] < LEAST:
            return t
        for k in range(p.shape[1]):
            share = p[t, k]
            if share < LEAST:
                continue
            drawn = k == arms[t]
            rows[k, 0] += 1.0
            rows[k, 1] += drawn
            rows[k, 2] += share
            rows[k, 3] += share * (1.0 - share)
            rows[k, 4] += 1.0 / share if drawn else 0.0
            if share >= 1.0:
                continue
            log_odds = math.log(share / (1.0 - share))
            log_p = math.log(share if drawn else 1.0 - share)
            for i, power in enumerate(TEMPERS):
                bet = power * log_odds if drawn else -power * log_odds
                rows[k, 5 + i] -= (math.log1p(math.exp(-bet)) if bet > LOWEST else -bet) + log_p
    return -1


def draw_rows(p: ArrayLike, arms: ArrayLike) -> Matrix:
    """Return what decisions add to the rows of the arms, shape [K, 9], from p of all arms, shape [n, K], and the drawn.

    Rows add up, in any order and over replicas. An arm that is not allowed has p = 0. Raises ValueError for a p that is
    no distribution, and for a drawn arm that p says could not be.
    """
    shares = np.ascontiguousarray(p, dtype=np.float64)
    drawn = np.asarray(arms)
    if shares.ndim != 2 or drawn.shape != shares.shape[:1] or (drawn.size and drawn.dtype.kind not in "iu"):
        raise ValueError("p and arms: must have the shapes [n, K] and [n], with arms as indices")
    if not ((shares >= 0.0).all() and (abs(shares.sum(axis=1) - 1.0) <= 1e-6).all()):
        raise ValueError("p: each row must be a distribution over the arms")
    if drawn.size and not 0 <= drawn.min() <= drawn.max() < shares.shape[1]:
        raise ValueError(f"arms: each must be an index from 0 to {shares.shape[1] - 1}")
    rows = np.zeros((shares.shape[1], WIDTH))
    wrong = fill(shares, np.ascontiguousarray(drawn, dtype=np.int64), rows)
    if wrong >= 0:
        raise ValueError(f"p: row {wrong} gives the arm that was drawn, {drawn[wrong]}, the probability 0")
    return rows


def draw_evidence(rows: ArrayLike, *, alpha: float = 0.001, tightest_at: float = 250.0) -> float:
    """Evidence that the arms were not drawn by the p of the log, also where that changes with every decision.

    S = Σ(1{A=a} - p) is bet on being above 0, and below, by mixtures that are sharpest near Σp(1 - p) = `tightest_at`;
    an increment is at most 1, so S is sub-Poisson, after G. Bennett, "Probability inequalities for the sum of
    independent random variables", JASA 57 (1962). The likelihood ratios of odds to a power against odds find what
    cancels out in S but not in the mean of 1{A=a}/p: a floor left out of the log, a distribution sharpened after it.
    The stake is shared by all bets on all arms; so is alpha. Raises ValueError for rows that no decisions add up to.
    """
    sums = _rows(rows)
    mixture = GammaPoissonMixture(tightest_at, 1.0, alpha)
    won = [
        (mixture.log_evidence(drawn - expected, v), mixture.log_evidence(expected - drawn, v), *tempered)
        for _, drawn, expected, v, _, *tempered in sums.tolist()
    ]
    return float(np.logaddexp.reduce(np.ravel(won)) - math.log(np.size(won)))


def mean_weights(rows: ArrayLike) -> Vector:
    """Mean of 1{A=a}/p for each arm, shape [K]: near 1 if all is well, and 1 where nothing was seen."""
    sums = _rows(rows)
    return np.divide(sums[:, 4], sums[:, 0], out=np.ones(len(sums)), where=sums[:, 0] > 0.0)


def _rows(rows: ArrayLike) -> Matrix:
    sums = np.asarray(rows, dtype=np.float64)
    if sums.ndim != 2 or sums.shape[1] != WIDTH or not len(sums) or not np.isfinite(sums).all():
        raise ValueError(f"rows: must be finite numbers of the shape [K, {WIDTH}]")
    if (sums[:, :5] < 0.0).any():
        raise ValueError("rows: a count or a sum of probabilities is below 0")
    return sums
