"""Off-policy evaluation: what a policy would have earned, told from the log of another. Or that the log cannot tell.

Estimators weigh a row by w = target's probability of the logged arm / its propensity, or predict what was not seen, or
both. With the reward R, the predicted reward q(a) of arm a, and the target's probabilities π:

    ips          mean of w R                              unbiased; as noisy as the weights
    snips        Σ w R / Σ w                              a little biased, steadier
    clipped_ips  mean of min(w, clip) R                   too low, steadier
    dm           mean of Σ_a π(a) q(a)                    as biased as the predictions
    dr           mean of Σ_a π(a) q(a) + w (R - q)        unbiased, steadier the better the predictions
    switch_dr    dr, with 0 for w where it is above tau
    dr_os        dr, with lam w / (w² + lam) for w        optimistic shrinkage

M. Dudík, D. Erhan, J. Langford, L. Li, "Doubly robust policy evaluation and optimization", Statistical Science 2014;
A. Swaminathan, T. Joachims, "The self-normalized estimator for counterfactual learning", NeurIPS 2015;
Y.-X. Wang, A. Agarwal, M. Dudík, "Optimal and adaptive off-policy evaluation in contextual bandits", ICML 2017;
Y. Su, M. Dimakopoulou, A. Krishnamurthy, M. Dudík, "Doubly robust off-policy evaluation with shrinkage", ICML 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bandits.anytime.off_policy import doubly_robust_sequence, value_interval
from bandits.log import Log, all_arms, refuse
from bandits.overlap import Overlap, overlap_of
from bandits.policy import Vector
from bandits.predictions import ridge_predictions, running_means

LIMITS = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, math.inf)
"""What `clip` and `tau` are chosen from; the weights average 1."""

SQUARES = tuple(limit * limit for limit in LIMITS)
"""What `lam` is chosen from: it bends weights of about its root."""

LEAST = 1e-100  # limit: the heaviest weight's square over it is still finite


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its standard error, and the limit of the weights that was taken; None where there is none."""

    value: float
    error: float
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a log says of a target. Read `answerable` first, then `dr`, and decide by `low` and `high`.

    The standard errors are those of independent rows. They know nothing of bias: of snips, clipped_ips, switch_dr and
    dr_os a little, of dm whatever is wrong with its predictions. The interval knows all: it holds at all times at once,
    also where the logging policy learnt, if the propensities are true and the value is the same throughout the log.
    With `low` above `high` the log itself refutes its propensities.
    """

    ips: Estimate
    snips: Estimate
    clipped_ips: Estimate
    dm: Estimate
    dr: Estimate
    switch_dr: Estimate
    dr_os: Estimate
    low: float
    high: float
    overlap: Overlap

    @property
    def answerable(self) -> bool:
        """Whether the log can answer at all, as `Overlap.answerable` has it."""
        return self.overlap.answerable

    @property
    def why(self) -> str:
        """Why it cannot; empty where it can."""
        return self.overlap.why

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The estimates by their names."""
        names = ("ips", "snips", "clipped_ips", "dm", "dr", "switch_dr", "dr_os")
        return {name: getattr(self, name) for name in names}


def evaluate(
    log: Log,
    target: Vector,
    *,
    predictions: Vector | None = None,
    clip: float | Sequence[float] = LIMITS,
    tau: float | Sequence[float] = LIMITS,
    lam: float | Sequence[float] = SQUARES,
    floor: float | None = None,
    alpha: float = 0.05,
) -> Evaluation:
    """Estimate the mean reward of a fixed policy that would have chosen by the probabilities `target`, float[n, K].

    `target_of` makes them from a policy and sums that were learnt elsewhere. `predictions` float[n, K] in [0, 1] are
    those of each arm's reward, by default `ridge_predictions(log)`. Of several limits the one that seems to err least
    is taken. The interval misses the value with probability at most `alpha`. Where weights are heavy it is far tighter
    if it knows a `floor`, below which no propensity of any arm could ever be, as of a uniform split or epsilon-greedy.
    Raises ValueError for a log of a single row, for a target that is no distribution over the allowed arms of some row,
    for propensities below the floor, and for limits that are not above 0.
    """
    n = len(log)
    if n < 2:
        raise ValueError("log: must have two rows at least, as one has no standard error")
    pi = all_arms(target, "target", log)
    refuse(abs(pi.sum(axis=1) - 1.0) > 1e-6, "target", "the probabilities must have the sum 1")
    if log.allowed is not None:
        refuse((pi > 0.0) & ~log.allowed, "target", "an arm that was not allowed must have the probability 0")
    w = log.weights(pi)
    low, high = _interval(log, pi, w, floor, alpha)

    q = ridge_predictions(log, folds=min(5, n)) if predictions is None else all_arms(predictions, "predictions", log)
    known = (pi * q).sum(axis=1)
    surprise = log.rewards - q[np.arange(n), log.arms]
    return Evaluation(
        ips=_mean(w * log.rewards),
        snips=_ratio(w, log.rewards),
        clipped_ips=_limited("clip", clip, lambda limit: np.minimum(w, limit) * log.rewards),
        dm=_mean(known),
        dr=_mean(known + w * surprise),
        switch_dr=_limited("tau", tau, lambda limit: known + np.where(w <= limit, w, 0.0) * surprise),
        dr_os=_limited("lam", lam, lambda limit: known + w / (1.0 + w * w / limit) * surprise),
        low=low,
        high=high,
        overlap=overlap_of(log, pi, w),
    )


def _interval(log: Log, pi: Vector, w: Vector, floor: float | None, alpha: float) -> tuple[float, float]:
    """With a floor what both methods leave, as the one is better for light weights, the other for heavy ones."""
    if floor is None:
        return value_interval(w, log.rewards, alpha=alpha)
    if not 0.0 < floor <= log.propensities.min():
        raise ValueError(f"floor: must be above 0, and no propensity of the log below it, got {floor}")
    plain = value_interval(w, log.rewards, alpha=alpha / 2)
    lows, highs = doubly_robust_sequence(log, pi, running_means(log), k=1.0 / floor, alpha=alpha / 2)
    return max(plain[0], float(lows[-1])), min(plain[1], float(highs[-1]))


def _mean(scores: Vector, limit: float | None = None) -> Estimate:
    return Estimate(float(scores.mean()), float(scores.std(ddof=1)) / math.sqrt(len(scores)), limit)


def _ratio(weights: Vector, rewards: Vector) -> Estimate:
    """Σ w R / Σ w with its standard error by the delta method; 0 where no row weighs anything."""
    total = weights.sum()
    if total == 0.0:
        return Estimate(0.0, 0.0)
    value = (weights * rewards).sum() / total
    return Estimate(float(value), float(np.sqrt(((weights * (rewards - value)) ** 2).sum()) / total))


def _limited(name: str, limits: float | Sequence[float], scores: Callable[[float], Vector]) -> Estimate:
    """Take the limit of least estimated squared error: low limits bias, high ones sway.

    The bias is estimated by the distance from the highest limit's value, after Wang, Agarwal, Dudík (2017) and Su et
    al. (2020), who bound it instead.
    """
    falling = sorted(map(float, np.atleast_1d(np.asarray(limits, dtype=np.float64))), reverse=True)
    if not falling or not all(limit >= LEAST for limit in falling):
        raise ValueError(f"{name}: must be above 0, one number or several to choose from, got {limits}")
    tried = [_mean(scores(limit), limit if limit < math.inf else None) for limit in falling]
    return min(tried, key=lambda estimate: (estimate.value - tried[0].value) ** 2 + estimate.error**2)
