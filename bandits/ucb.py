"""Optimism: the arm whose mean could be the greatest, by the upper end of a confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

from bandits.counts import Arms, Counts, per_mask, plays_and_rewards
from bandits.kernels import kernel
from bandits.policy import Fitted, Vector


@kernel(numba.float64(numba.float64, numba.float64, numba.float64, numba.float64))
def ucb1_index(n: float, s: float, t: float, c: float) -> float:
    """Mean reward s / n plus sqrt(c ln t / n): s earned in n of the t plays of all arms. Infinite without a play."""
    if n <= 0.0:
        return math.inf
    return s / n + math.sqrt(c * max(math.log(t), 0.0) / n)  # forgetting can leave less than one play in all


@kernel(numba.float64(numba.float64, numba.float64, numba.float64))
def kl_ucb_plus_index(n: float, s: float, t: float) -> float:
    """Return the greatest q with n kl(s / n, q) <= ln(t / n), kl that of Bernoulli; infinite without a play.

    Over z = ln((1 - mean) / (1 - q)) the divergence is convex, with the slope (q - mean) / q, and all but straight far
    out. So Newton's method from an upper bound falls on the solution without passing it, in about five steps. Nothing
    cancels near the mean, so q is accurate to 1e-12 whatever n.
    """
    if n <= 0.0:
        return math.inf
    mean = s / n
    limit = math.log1p((t - n) / n) / n
    if limit <= 0.0 or mean >= 1.0:
        return mean
    if limit > 40.0:  # z is greater still
        return 1.0
    if mean <= 0.0:
        return -math.expm1(-limit)
    z = (limit - mean * math.log(mean)) / (1.0 - mean)  # kl >= (1 - mean) z + mean ln(mean), as q <= 1
    v = limit * (1.0 - mean)  # kl >= (q - mean)^2 / (2 q (1 - mean)), by its second derivative
    above = (v + math.sqrt(v * (v + 2.0 * mean))) / (1.0 - mean)
    if above < 1.0:
        z = min(z, -math.log1p(-above))
    q = mean
    for _ in range(64):
        above = -(1.0 - mean) * math.expm1(-z)
        q = mean + above
        kl = (1.0 - mean) * z - mean * math.log1p(above / mean)
        step = (kl - limit) * q / above
        z -= step
        if step * (1.0 - q) < 1e-13:
            break
    return q


def optimistic(index: Vector) -> Fitted:
    """Choose the allowed arm of the greatest index; those of equal index equally."""

    def share(arms: Arms) -> Vector:
        best = index[arms] == index[arms].max()
        p: Vector = best / np.count_nonzero(best)
        return p

    return per_mask(len(index), share)


@dataclass(frozen=True, slots=True)
class UCB1(Counts):
    """The arm of the greatest mean reward plus sqrt(exploration * ln t / n), t the plays of all arms, n its own.

    An arm without a play comes first. p is 1 but where arms are equal: put it under a floor if the log is to answer for
    other policies. The plays of forbidden arms count in t too.
    P. Auer, N. Cesa-Bianchi, P. Fischer, "Finite-time analysis of the multiarmed bandit problem", Machine Learning 47
    (2002), with `exploration` = 2. With 1/2 an index is too low with probability 1/t by Hoeffding's inequality, instead
    of 1/t^4, and the regret is far less.
    """

    exploration: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.exploration < math.inf:
            raise ValueError(f"exploration: must be finite and not below 0, got {self.exploration}")

    def fit(self, sums: Vector) -> Fitted:
        plays, rewards = plays_and_rewards(sums)
        t, c = plays.sum(), self.exploration
        return optimistic(np.array([ucb1_index(n, s, t, c) for n, s in zip(plays, rewards, strict=True)]))


@dataclass(frozen=True, slots=True)
class KLUCBPlus(Counts):
    """The arm that could have the greatest mean: the greatest q with n kl(mean reward, q) <= ln(t / n).

    kl is the divergence between Bernoulli distributions, which bounds that of any rewards in [0, 1]; t are the plays of
    all arms. It has no parameter, regrets as little as Thompson sampling and varies less. An arm without a play comes
    first, and p is 1 but where arms are equal, as UCB1's.
    A. Garivier, O. Cappé, "The KL-UCB algorithm for bounded stochastic bandits and beyond", COLT 2011.
    """

    def fit(self, sums: Vector) -> Fitted:
        plays, rewards = plays_and_rewards(sums)
        t = plays.sum()
        return optimistic(np.array([kl_ucb_plus_index(n, s, t) for n, s in zip(plays, rewards, strict=True)]))
