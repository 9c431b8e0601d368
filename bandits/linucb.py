"""LinUCB: the arm whose reward at the context could be the greatest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

from bandits.kernels import MASK, MATRIX, VECTOR, direct, kernel
from bandits.linear import Linear, Matrix
from bandits.policy import Fitted, Mask, Vector


@numba.njit(inline="always")
def predict(
    context: Vector, allowed: Mask, frame: Matrix, models: Matrix, scratch: Vector, mean: Vector, deviation: Vector
) -> bool:
    """Write θ·z and sqrt(zᵀA⁻¹z) of each allowed arm. False where the context or the mask is wrong, or allows none.

    All arms share zzᵀ, so that each takes a single sum. linear_thompson.py has the same kernel.
    """
    centre, scale, least, greatest = frame[0], frame[1], frame[2], frame[3]
    d = len(least)
    if len(context) != d or len(allowed) != len(mean):
        return False
    n = 1 + d
    z, zz = scratch[:n], scratch[n:]
    z[0] = 1.0
    for i in range(d):
        if not least[i] <= context[i] <= greatest[i]:  # true for NaN too
            return False
        z[1 + i] = (context[i] - centre[i]) / scale[i]
    at = 0
    for i in range(n):
        products = zz[at:]
        for j in range(i + 1):
            products[j] = z[i] * z[j]
        at += i + 1
    some = False
    for k in range(len(mean)):
        if allowed[k]:
            some = True
            weights, inverse = models[k, :n], models[k, n:]
            prediction = 0.0
            for i in range(n):
                prediction += weights[i] * z[i]
            variance = 0.0
            for i in range(len(zz)):
                variance += inverse[i] * zz[i]
            mean[k] = prediction
            deviation[k] = math.sqrt(max(variance, 0.0))
    return some


@kernel(numba.boolean(VECTOR, MASK, MATRIX, MATRIX, numba.float64, numba.float64[::1]), nogil=False, vectorised=True)
def decide(context: Vector, allowed: Mask, frame: Matrix, models: Matrix, alpha: float, p: Vector) -> bool:
    """Fill p. False where `predict` is."""
    K, m = len(p), models.shape[1]
    work = np.empty(m + K)
    index, deviation = p, work[m:]
    if not predict(context, allowed, frame, models, work[:m], index, deviation):
        return False
    best = -np.inf
    for k in range(len(p)):
        if allowed[k]:
            index[k] += alpha * deviation[k]
            best = max(best, index[k])
    leaders = 0
    for k in range(len(p)):
        if allowed[k] and index[k] == best:
            p[k] = 1.0
            leaders += 1
        else:
            p[k] = 0.0
    p /= leaders
    return True


_decide = direct(decide)


@dataclass(frozen=True, slots=True)
class LinUCB(Linear):
    """The arm of the greatest θ·z + alpha * sqrt(zᵀA⁻¹z): predicted reward plus `alpha` of its standard errors.

    Arms of exactly equal index are played equally, all of them when nothing is learnt. Else p is 1 and 0: put it under
    a floor if the log is to answer for other policies.
    L. Li, W. Chu, J. Langford, R. Schapire, "A contextual-bandit approach to personalized news article
    recommendation", WWW 2010.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        Linear.__post_init__(self)
        if not 0.0 <= self.alpha <= 1e6:
            raise ValueError(f"alpha: must lie in [0, 1e6], got {self.alpha}")

    def fit(self, sums: Vector) -> Fitted:
        return self.decided_by(_decide, self.models(sums, errors=True), self.alpha)
