"""Top-two Thompson sampling: to find the best arm soon, rather than to earn while looking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.beta import probability_best
from bandits.counts import Arms, Counts, per_mask
from bandits.policy import Fitted, Vector
from bandits.thompson import Thompson

RESOLVED = 1e-13  # down to here the probabilities of the others are good to a thousandth


@dataclass(frozen=True, slots=True)
class TopTwoThompson(Counts):
    """With probability `leader` the arm that Thompson sampling draws; else its next draw that is another arm.

    So the arms that could still be the best are tried about equally hard, where Thompson sampling all but stops trying
    any but the first: with the same traffic it is surer which arm is best, at the price of a higher regret. In the end
    the best arm gets `leader` of the plays, and the others share the rest as is best for telling them apart.

    With Thompson's probabilities q, p_k = leader q_k + (1 - leader) Σ_{j≠k} q_j q_k / (1 - q_j), exactly. Once a leader
    is so sure that float64 holds no q of the others, their ratios are those of the large deviations (`challenge`).
    D. Russo, "Simple Bayesian algorithms for best arm identification", COLT 2016.
    """

    leader: float = 0.5
    alpha: float = 1.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.leader <= 1.0:
            raise ValueError(f"leader: must lie in (0, 1], got {self.leader}")
        Thompson(self.alpha, self.beta)  # refuses a prior outside its range

    def fit(self, sums: Vector) -> Fitted:
        a, b = Thompson(self.alpha, self.beta).posterior(sums)

        def share(arms: Arms) -> Vector:
            q = probability_best(a[arms], b[arms])
            q /= q.sum()
            p: Vector = self.leader * q + (1.0 - self.leader) * another(q, a[arms], b[arms]) if len(q) > 1 else q
            p /= p.sum()
            return p

        return per_mask(len(a), share)


def another(q: Vector, a: Vector, b: Vector) -> Vector:
    """Probabilities of the second draw: Σ_{j≠k} q_j q_k / (1 - q_j), for the posteriors Beta(a[k], b[k]) behind q."""
    first = q.argmax()
    others = q.copy()
    others[first] = 0.0
    rest = others.sum()  # 1 - q[first], which would round
    odds = others / (1.0 - others)
    after_first = others / rest if rest > RESOLVED else challenge(first, a, b)
    p: Vector = q[first] * after_first + q * (odds.sum() - odds)
    return p


def challenge(first: np.intp, a: Vector, b: Vector) -> Vector:
    """Probability of each arm to be the one that beats the first, when that is all but impossible.

    Arm k beats it with a probability that falls as exp(-c_k) / sqrt(c_k), by Laplace's method. The cost c is the least
    of (a + b) kl(a / (a + b), x) of both arms together, for the x where they are most easily equal: their pooled mean.
    """
    n = a + b
    x = (a[first] + a) / (n[first] + n)
    y = (b[first] + b) / (n[first] + n)
    own = a * np.log(a / n / x) + b * np.log(b / n / y)
    its = a[first] * np.log(a[first] / n[first] / x) + b[first] * np.log(b[first] / n[first] / y)
    cost = own + its
    cost[first] = np.inf
    least = cost.min()
    weight: Vector = np.exp(least - cost) * np.sqrt(least / cost)
    weight /= weight.sum()
    return weight
