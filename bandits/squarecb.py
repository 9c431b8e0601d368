"""SquareCB: the farther an arm's predicted reward is from the best, the more seldom it is played."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

from bandits.kernels import MASK, MATRIX, VECTOR, direct, kernel
from bandits.linear import Linear, Matrix
from bandits.policy import Fitted, Mask, Vector

LEADS = -1.0  # in the place of the p of an arm that is predicted best, until the others are known


@kernel(numba.boolean(VECTOR, MASK, MATRIX, MATRIX, numba.float64, numba.float64[::1]), nogil=False, vectorised=True)
def decide(context: Vector, allowed: Mask, frame: Matrix, models: Matrix, gamma: float, p: Vector) -> bool:
    """Fill p. False where the context or the mask is wrong, or no arm is allowed."""
    least, greatest = frame[2], frame[3]
    d = len(least)
    if len(context) != d or len(allowed) != len(p):
        return False
    for i in range(d):
        if not least[i] <= context[i] <= greatest[i]:
            return False
    count = 0
    best = -np.inf
    for k in range(len(p)):
        if allowed[k]:
            weights = models[k, 1:]
            prediction = models[k, 0]
            for i in range(d):
                prediction += weights[i] * context[i]
            p[k] = prediction
            best = max(best, prediction)
            count += 1
    leaders = 0
    rest = 1.0
    for k in range(len(p)):
        if not allowed[k]:
            p[k] = 0.0
        elif p[k] == best:
            p[k] = LEADS
            leaders += 1
        else:
            p[k] = 1.0 / (count + gamma * (best - p[k]))
            rest -= p[k]
    for k in range(len(p)):
        if p[k] == LEADS:
            p[k] = rest / leaders
    return leaders > 0


_decide = direct(decide)


@dataclass(frozen=True, slots=True)
class SquareCB(Linear):
    """Each arm with 1 / (K + γ gap), where its predicted reward falls short of the best by the gap; the best the rest.

    K counts the allowed arms, and γ = gamma * n^exponent grows with the plays n of all arms. Arms that are predicted
    exactly equal are played equally. Predictions are not clipped to [0, 1], as gaps stay meaningful beyond.
    Every arm keeps a probability, at least 1 / (K + γ gap), so the log can answer for other policies.
    D. Foster, A. Rakhlin, "Beyond UCB: optimal and efficient contextual bandits with regression oracles", ICML 2020;
    the weighting is that of N. Abe, P. Long, "Associative reinforcement learning using linear probabilistic concepts",
    ICML 1999.
    """

    gamma: float = 100.0
    exponent: float = 0.5

    def __post_init__(self) -> None:
        Linear.__post_init__(self)
        if not 0.0 <= self.gamma < math.inf:
            raise ValueError(f"gamma: must be finite and not below 0, got {self.gamma}")
        if not 0.0 <= self.exponent <= 1.0:
            raise ValueError(f"exponent: must lie in [0, 1], got {self.exponent}")

    def fit(self, sums: Vector) -> Fitted:
        models = self.models(sums, errors=False)
        mean, scale, _, _ = self.frame
        models[:, 1:] /= scale  # from weights of x to weights of the context
        models[:, 0] -= models[:, 1:] @ mean
        plays: float = np.asarray(sums)[:, 0].sum()
        return self.decided_by(_decide, models, self.gamma * plays**self.exponent)
