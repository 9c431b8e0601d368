"""Linear Thompson sampling: each arm as often as its reward at the context is the greatest, given all rewards.

The weights of an arm are a Gaussian vector, but only their product with one context is asked for. So instead of vectors
of weights, K independent Gaussian numbers are compared, and by an integral instead of samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

from bandits.kernels import MASK, MATRIX, VECTOR, direct, kernel
from bandits.linear import Linear, Matrix
from bandits.policy import Fitted, Mask, Vector

NODES = 24  # of a panel: three vectors of eight, where a processor has such
REACH = 5.0  # standard deviations from its mean to which a hump is integrated
WIDTH, STEEPER = 18.0, 0.45  # a panel is WIDTH / (1 + STEEPER ln K) deviations wide: F of K arms rises more steeply
NARROWEST = 1e-9  # a deviation, against the mean: narrower, the nodes round to one another

x, w = np.polynomial.legendre.leggauss(NODES)
X, W = (1 + x) / 2, w / 2  # on [0, 1]


@numba.njit(inline="always")
def evaluate(z: float, step: float, rate: float, product: Vector, hazard: Vector) -> None:
    """At the nodes of a panel from z on, `step` wide: multiply `product` by F, and set `hazard` to rate * f / F.

    f and F are those of the standard Gaussian. Without a call or a branch, the processor works at many nodes at once:
    e^y is (e^(y / 256))^256, and 1 - F is f times a polynomial of 1 / (1 + 0.23 z), which errs by less than 1e-7.
    C. Hastings, "Approximations for digital computers", 1955; in M. Abramowitz, I. Stegun, "Handbook of mathematical
    functions", 1964, it is 26.2.17.
    """
    for i in range(NODES):
        at = z + step * X[i]
        y = -0.5 / 256 * min(at * at, 64.0)
        f = 1 + y * (1 + y * (1 / 2 + y * (1 / 6 + y * (1 / 24 + y * (1 / 120)))))
        f *= f
        f *= f
        f *= f
        f *= f
        f *= f
        f *= f
        f *= f
        f *= f * 0.3989422804014327
        s = 1 / (1 + 0.2316419 * abs(at))
        tail = f * s * (0.319381530 + s * (-0.356563782 + s * (1.781477937 + s * (-1.821255978 + s * 1.330274429))))
        F = tail if at < 0 else 1 - tail
        product[i] *= F
        hazard[i] = rate * f / F


@kernel(numba.void(VECTOR, VECTOR, numba.float64[::1], numba.float64[::1]), vectorised=True)
def probability_best(mean: Vector, deviation: Vector, scratch: Vector, p: Vector) -> None:
    """Fill p [K] with the probability of each of K independent Gaussians to be the greatest; a mean of -inf: never.

    p_k = ∫ f_k Π_{j≠k} F_j = ∫ (f_k / F_k) Π_j F_j, from where the last hump begins: below, some F is 0. The line is
    cut into panels, each about as wide as the narrowest hump that has not ended there, with Gauss-Legendre nodes: so
    deviations may differ as they like. The measured error is below 1e-6 for 100 arms, 4e-6 for 1000. `scratch` is
    NODES (K + 1) + K long.
    """
    K = len(mean)
    product, z = scratch[:NODES], scratch[NODES * (K + 1) :]
    t = -np.inf
    for k in range(K):
        p[k] = 0.0
        t = max(t, mean[k] - REACH * deviation[k])
    while True:
        count = 0
        narrowest = np.inf
        for k in range(K):
            z[k] = (t - mean[k]) / deviation[k]
            if z[k] < REACH:
                count += 1
                narrowest = min(narrowest, deviation[k])
        if count == 0:
            break
        width = narrowest * WIDTH / (1 + STEEPER * math.log(count))
        for i in range(NODES):
            product[i] = width * W[i]
        for k in range(K):
            if z[k] < REACH:
                rate = 1 / deviation[k]
                evaluate(z[k], width * rate, rate, product, scratch[NODES * (k + 1) : NODES * (k + 2)])
        for k in range(K):
            if z[k] < REACH:
                hazard = scratch[NODES * (k + 1) : NODES * (k + 2)]
                share = 0.0
                for i in range(NODES):
                    share += hazard[i] * product[i]
                p[k] += share
        t += width
    p /= p.sum()


@numba.njit(inline="always")
def predict(
    context: Vector, allowed: Mask, frame: Matrix, models: Matrix, scratch: Vector, mean: Vector, deviation: Vector
) -> bool:
    """Write θ·z and sqrt(zᵀA⁻¹z) of each allowed arm. False where the context or the mask is wrong, or allows none.

    A copy of the kernel in linucb.py, as Numba's cache looks at one file.
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
def decide(context: Vector, allowed: Mask, frame: Matrix, models: Matrix, v: float, p: Vector) -> bool:
    """Fill p. False where `predict` is."""
    K, m = len(p), models.shape[1]
    work = np.empty(m + 3 * K + NODES * (K + 1))
    mean, deviation, scratch = work[m : m + K], work[m + K : m + 2 * K], work[m + 2 * K :]
    if not predict(context, allowed, frame, models, work[:m], mean, deviation):
        return False
    for k in range(K):
        if allowed[k]:
            deviation[k] = max(v * deviation[k], NARROWEST * (1.0 + abs(mean[k])))
        else:
            mean[k], deviation[k] = -np.inf, 1.0
    probability_best(mean, deviation, scratch, p)
    return True


_decide = direct(decide)


@dataclass(frozen=True, slots=True)
class LinearThompson(Linear):
    """Each arm with the probability that its expected reward at the context is the greatest, given the rewards so far.

    That of an arm is a Gaussian of the mean θ·z and the deviation v sqrt(zᵀA⁻¹z), independent of the other arms'. `v`
    is the deviation of the noise; a smaller one explores less. p errs by less than 1e-6 for up to 100 arms, and is the
    very p that is drawn from. An arm whose five deviations end below where another's five begin has none.
    S. Agrawal, N. Goyal, "Thompson sampling for contextual bandits with linear payoffs", ICML 2013.
    """

    v: float = 0.05

    def __post_init__(self) -> None:
        Linear.__post_init__(self)
        if not 1e-6 <= self.v <= 1e6:
            raise ValueError(f"v: must lie between 1e-6 and 1e6, got {self.v}")

    def fit(self, sums: Vector) -> Fitted:
        return self.decided_by(_decide, self.models(sums, errors=True), self.v)
