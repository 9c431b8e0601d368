"""One score for each decision, with the difference of two arms' mean rewards as its mean, however arms were chosen.

φ = m_a - m_b + 1{A=a} (R - m_a) / p - 1{A=b} (R - m_b) / p

where A is the arm that was chosen, with probability p, and m_a and m_b are any predictions made beforehand: good ones
narrow the interval, bad ones bias nothing. That is augmented inverse-propensity weighting (AIPW): J. M. Robins,
A. Rotnitzky, L. P. Zhao, "Estimation of regression coefficients when some regressors are not always observed", Journal
of the American Statistical Association 89 (1994).

Score the decisions whose rewards are due, those that never came as the reward that silence means: whoever scores
rewards as they come favours the arm that is answered sooner. Where a unit is drawn for once and asks many times, score
the unit and not its requests: these are no new draws.
"""

from __future__ import annotations

from typing import TypeAlias

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandits.kernels import VECTOR, kernel
from bandits.policy import Vector

Matrix: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]

TERMS = 7
"""Numbers in a term: 1, φ, φ², (φ - m_a + m_b)², the variance foreseen for the last, 1{A=a} and 1{A=b}.

Without an arm b, the last is 1{A=a} again.
"""

UNSEEN = 4.0  # rewards, each ½ off its prediction, that every arm is taken to have had before its first

_MATRIX = numba.types.Array(numba.float64, 2, "C", readonly=True)
_INDICES = numba.types.Array(numba.int64, 1, "C", readonly=True)
_OUT = numba.float64[:, ::1]


@kernel(numba.float64(_OUT, numba.int64, numba.float64, numba.float64))
def running_mean(learnt: Matrix, k: int, plays: float, rewards: float) -> float:
    """Mean reward of arm k so far, and of one reward more, the mean of all arms."""
    overall = rewards / plays if plays > 0.0 else 0.5
    mean: float = (learnt[k, 1] + overall) / (learnt[k, 0] + 1.0)
    return mean


@kernel(numba.void(_INDICES, VECTOR, VECTOR, _MATRIX, _OUT, numba.int64, numba.int64, _OUT))
def fill(
    arms: Indices,
    rewards: Vector,
    propensities: Vector,
    predictions: Matrix,
    learnt: Matrix,
    a: int,
    b: int,
    terms: Matrix,
) -> None:
    """Fill in the terms of arm a against arm b, or alone where b is -1: shape [n, 7], of zeros.

    Without rows of predictions, m are running means. `learnt` holds each arm's n, Σr and Σ(r - m)²; it is added to.
    """
    given = len(predictions) > 0
    plays, total = learnt[:, 0].sum(), learnt[:, 1].sum()
    for t in range(len(arms)):
        arm, p = arms[t], propensities[t]
        m_a = predictions[t, a] if given else running_mean(learnt, a, plays, total)
        m_b = 0.0
        if b >= 0:
            m_b = predictions[t, b] if given else running_mean(learnt, b, plays, total)
        expected = predictions[t, arm] if given else running_mean(learnt, arm, plays, total)
        surprise = rewards[t] - expected
        residual = 0.0
        if arm in (a, b):
            residual = surprise / p if arm == a else -surprise / p
            terms[t, 4] = (UNSEEN / 4.0 + learnt[arm, 2]) / (UNSEEN + learnt[arm, 0]) / (p * p)
            terms[t, 5] = arm == a
            terms[t, 6] = arm == b or b < 0
        score = m_a - m_b + residual
        terms[t, 0] = 1.0
        terms[t, 1] = score
        terms[t, 2] = score * score
        terms[t, 3] = residual * residual
        learnt[arm, 0] += 1.0
        learnt[arm, 1] += rewards[t]
        learnt[arm, 2] += surprise * surprise
        plays += 1.0
        total += rewards[t]


def aipw_terms(
    arms: ArrayLike,
    rewards: ArrayLike,
    propensities: ArrayLike,
    treatment: int,
    control: int | None = None,
    *,
    predictions: Matrix | None = None,
    sums: Matrix | None = None,
) -> Matrix:
    """Return what each decision adds to the row that `difference` judges: shape [n, 7], see `TERMS`.

    Rows add up, in any order and over replicas; the running sum of the terms is the row at every time. Arms are indices
    and rewards scaled to [0, 1], in the order of their decisions; propensities are those of the chosen arms. Without a
    control it is the value of the treatment alone. Predictions, shape [n, K], must not know the reward of their own
    decision; without them they are running means, which begin from `sums`, shape [K, 3 or more]: the n, Σr and Σr² of
    each arm before these decisions, such as a policy's.

    The variance foreseen is that of the arm's rewards before, and of four more that were ½ off, over p². So an arm that
    is played seldom, and has not had a success yet, is not taken for certain, as by its scores alone it would be. Four
    as in A. Agresti, B. A. Coull, "Approximate is better than 'exact' for interval estimation of binomial proportions",
    The American Statistician 52 (1998).
    Raises ValueError for lengths that differ, arms that are not there, propensities outside (0, 1], and whatever is not
    finite.
    """
    chosen = np.asarray(arms)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise ValueError(f"arms: must be a vector of indices, not {chosen.dtype} of shape {list(chosen.shape)}")
    n = len(chosen)
    R = _finite("rewards", rewards, n)
    p = _finite("propensities", propensities, n)
    if not ((p > 0.0) & (p <= 1.0)).all():
        raise ValueError("propensities: an arm that was chosen had a probability above 0 and up to 1")
    b = -1 if control is None else control
    if treatment == b or treatment < 0 or b < -1:
        raise ValueError(f"treatment and control: must be the indices of two arms, not {treatment} and {control}")

    K = max(int(chosen.max(initial=0)), treatment, b) + 1
    m = np.zeros((0, 0))
    if predictions is not None:
        m = _finite("predictions", predictions, n, at_least=K)
        K = m.shape[1]
    learnt = np.zeros((K, 3)) if sums is None else _learnt(sums)
    if chosen.min(initial=0) < 0 or len(learnt) < K:
        raise ValueError(f"arms: an index is below 0, or above {len(learnt) - 1}, the last arm of the sums")

    terms = np.zeros((n, TERMS))
    fill(np.ascontiguousarray(chosen, dtype=np.int64), R, p, m, learnt, treatment, b, terms)
    return terms


def aipw_scores(
    arms: ArrayLike,
    rewards: ArrayLike,
    propensities: ArrayLike,
    treatment: int,
    control: int | None = None,
    *,
    predictions: Matrix | None = None,
    sums: Matrix | None = None,
) -> Vector:
    """Return the scores φ alone, shape [n], for whatever else wants to read them. See `aipw_terms`."""
    terms = aipw_terms(arms, rewards, propensities, treatment, control, predictions=predictions, sums=sums)
    return np.ascontiguousarray(terms[:, 1])


def cuped(outcomes: ArrayLike, covariate: ArrayLike, *, slope: float | None = None) -> Vector:
    """Return Y - θ(X - X̄), shape [n]: outcomes less what a covariate from before the experiment explains of them.

    Their variance is (1 - ρ²) times that of the outcomes if ρ is their correlation with the covariate and the slope θ
    is cov(X, Y) / var(X), as it is if not given. Inverse-propensity weighting these is AIPW with the predictions
    θ(X - X̄) for every arm, so give those to `aipw_terms` where propensities vary: then arms' own means help too.
    A. Deng, Y. Xu, R. Kohavi, T. Walker, "Improving the sensitivity of online controlled experiments by utilizing
    pre-experiment data", WSDM 2013. Raises ValueError for lengths that differ and whatever is not finite.
    """
    Y = _finite("outcomes", outcomes, np.size(outcomes))
    X = _finite("covariate", covariate, len(Y))
    if not len(Y):
        return Y
    X = X - X.mean()
    if slope is None:
        squares = float(X @ X)
        slope = float(X @ Y) / squares if squares > 0.0 else 0.0
    elif not np.isfinite(slope):
        raise ValueError("slope: must be a finite number")
    adjusted: Vector = Y - slope * X
    return adjusted


def _finite(name: str, values: ArrayLike, n: int, *, at_least: int | None = None) -> Vector:
    """Float64 of shape [n], or [n, K] with K `at_least` so many."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    fits = array.shape == (n,) if at_least is None else array.ndim == 2 and len(array) == n
    if not fits or (at_least is not None and array.shape[1] < at_least):
        wanted = f"[{n}]" if at_least is None else f"[{n}, {at_least} or more]"
        raise ValueError(f"{name}: must have the shape {wanted}, not {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: holds a number that is not finite")
    return array


def _learnt(sums: Matrix) -> Matrix:
    """Each arm's n, Σr and Σ(r - mean)², out of rows that begin with n, Σr and Σr²."""
    rows = np.array(sums, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] < 3 or not np.isfinite(rows).all():
        raise ValueError("sums: must be finite numbers of the shape [arms, 3 or more]: n, Σr and Σr² of each arm")
    n, total, squares = rows[:, :3].T
    around = squares - np.divide(total * total, n, out=np.zeros(len(n)), where=n > 0.0)
    if (n < 0.0).any() or (around < -1e-9 * (n + squares)).any():
        raise ValueError("sums: no rewards have these n, Σr and Σr², whose variance would be below 0")
    return np.column_stack([n, total, around.clip(0.0)])
