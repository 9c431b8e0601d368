"""The value of a policy that did not make the log: an interval that holds at all times at once, while logs grow.

Each row scores an unbiased estimate of the value, given all that came before it: w R, with the weight w = target's
probability of the logged arm / its propensity. The logging policy may itself be a bandit that learns, and nothing need
bound the weights: that no score falls far below the value is enough for a lower bound. The upper bound is one less the
lower bound for the rewards 1 - R.

I. Waudby-Smith, L. Wu, A. Ramdas, N. Karampatziakis, P. Mineiro, "Anytime-valid off-policy inference for contextual
bandits", 2022; before it N. Karampatziakis, P. Mineiro, A. Ramdas, "Off-policy confidence sequences", ICML 2021.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from bandits.kernels import VECTOR, kernel
from bandits.log import HEAVIEST, Log, all_arms, floats, refuse
from bandits.policy import Vector

ETA = 1.1  # of the stitched bound: the epochs' ratio ...
S = 1.1  # ... how fast their shares of alpha fall ...
ZETA = 10.584448464950809  # ... and their sum, the Riemann zeta function of S


def value_sequence(
    weights: Vector, rewards: Vector, *, alpha: float = 0.05, drifting: bool = False
) -> tuple[Vector, Vector]:
    """Low and high of the value after each of n rows, from their weights and rewards in [0, 1], in the order of time.

    All n intervals together miss the value with probability at most `alpha`. Without `drifting` the value is taken to
    be the same in every row; with it, each interval is of the average so far. Where low is above high, the weights do
    not average 1: the propensities are wrong.
    Raises ValueError for arrays of other shapes, for a reward outside [0, 1], and for a weight below 0 or above 1e100.
    """
    w = floats(weights, "weights", (None,))
    refuse(~((w >= 0.0) & (w <= HEAVIEST)), "weights", f"must be from 0 to {HEAVIEST:g}")
    r = floats(rewards, "rewards", w.shape)
    refuse(~((r >= 0.0) & (r <= 1.0)), "rewards", "must be a number from 0 to 1")
    return _both(w * r, w * (1.0 - r), 0.0, alpha, drifting=drifting)


def value_interval(
    weights: Vector, rewards: Vector, *, alpha: float = 0.05, drifting: bool = False
) -> tuple[float, float]:
    """The last interval of `value_sequence`; (0, 1) for no rows."""
    low, high = value_sequence(weights, rewards, alpha=alpha, drifting=drifting)
    return (float(low[-1]), float(high[-1])) if len(low) else (0.0, 1.0)


def doubly_robust_sequence(
    log: Log,
    target: Vector,
    predictions: Vector,
    *,
    k: float,
    logging: Vector | None = None,
    alpha: float = 0.05,
    drifting: bool = False,
) -> tuple[Vector, Vector]:
    """As `value_sequence`, and far tighter where weights are heavy. For that it has to know what bounds them.

    `target` float[n, K] are the probabilities of all arms; `predictions` float[n, K] are of the reward of each in
    [0, 1], made from earlier rows only, as by `running_means`. Where no weight that could ever have been is above `k`,
    nothing more is needed: 1 / floor is such a bound, if every propensity is at least the floor. Otherwise it takes
    `logging` float[n, K], the whole of every p that an arm was drawn from; then a prediction counts up to k / weight,
    whatever k is, and the greatest usual weight is a good one. A large k is paid for by a slow start.
    Raises ValueError for numbers outside [0, 1], and for a weight above k without `logging`.
    """
    pi, q = all_arms(target, "target", log), all_arms(predictions, "predictions", log)
    w = log.weights(pi)
    if not 0.0 <= k <= HEAVIEST:
        raise ValueError(f"k: must be from 0 to {HEAVIEST:g}, got {k}")
    if logging is None:
        refuse(w > k, "k", f"its weight is above {k:g}, so `logging` is needed")
    most = np.inf if logging is None else k * all_arms(logging, "logging", log)

    def scores(reward: Vector, prediction: Vector) -> Vector:
        expected: Vector = np.minimum(pi * prediction, most).sum(axis=1)
        return expected + w * reward - np.minimum(w * prediction[np.arange(len(w)), log.arms], k)

    return _both(scores(log.rewards, q), scores(1.0 - log.rewards, 1.0 - q), k, alpha, drifting=drifting)


def _both(scores: Vector, mirrored: Vector, k: float, alpha: float, *, drifting: bool) -> tuple[Vector, Vector]:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha: must be in (0, 1), got {alpha}")
    bounds = running_lower_bounds if drifting else lower_bounds
    return bounds(scores, k, alpha / 2), 1.0 - bounds(mirrored, k, alpha / 2)


@kernel(numba.float64[::1](VECTOR, numba.float64, numba.float64))
def lower_bounds(scores: Vector, k: float, alpha: float) -> Vector:
    """Lower bound, within [0, 1], of the one mean of scores that are not below -k, after each of them.

    Predictable plug-in empirical Bernstein: bets λ that shrink with the variance seen so far, as in I. Waudby-Smith,
    A. Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024, theorem 2.
    """
    scale = k + 1.0
    evidence = -math.log(alpha)
    total = bets = won = paid = 0.0
    spread = 0.25 / scale**2  # Σ(x - mean)², begun with one row of the greatest variance
    low = np.empty(len(scores))
    for i in range(len(scores)):
        x = scores[i] / scale
        guess = min(total / max(i, 1), 1.0 / scale)  # so that x - guess >= -1
        bet = min(math.sqrt(2.0 * evidence / (spread * math.log(i + 2.0))), 0.5)
        bets += bet
        won += bet * x
        paid += (x - guess) ** 2 * (-math.log1p(-bet) - bet)
        total += x
        spread += (x - (total + 0.5 / scale) / (i + 2.0)) ** 2
        low[i] = min(max(scale * (won - evidence - paid) / bets, 0.0), 1.0)
    return low


@kernel(numba.float64[::1](VECTOR, numba.float64, numba.float64))
def running_lower_bounds(scores: Vector, k: float, alpha: float) -> Vector:
    """Lower bound, within [0, 1], of the average so far of the scores' conditional means, after each score.

    Every row counts alike, so the means may drift. Polynomial stitching of S. R. Howard, A. Ramdas, J. McAuliffe,
    J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 2021, theorems 1
    and 4, with the constants that Vowpal Wabbit uses.
    """
    scale = k + 1.0
    root = (ETA**0.25 + ETA**-0.25) / math.sqrt(2.0)
    linear = (math.sqrt(ETA) + 1.0) / 2.0
    total = spread = 0.0
    low = np.empty(len(scores))
    for i in range(len(scores)):
        x = scores[i] / scale
        guess = min((total + 0.5 / scale) / (i + 1.0), 1.0 / scale)
        total += x
        spread += (x - guess) ** 2
        v = max(spread, 1.0)
        evidence = S * math.log(math.log(v) / math.log(ETA) + 2.0) + math.log(ZETA / alpha)
        radius = math.sqrt(root**2 * evidence * v + (linear * evidence) ** 2) + linear * evidence
        low[i] = min(max(scale * (total - radius) / (i + 1.0), 0.0), 1.0)
    return low
