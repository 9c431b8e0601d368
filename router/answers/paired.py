"""A policy beside what there was, at the same decisions: subtracted one by one, before any interval is told.

What makes a decision pay well, its context or its day, is then on both sides and in no difference, so the interval of
the differences is far narrower than that of either side. Score R' of a decision: Σ_a π(a) q(a) + w (R - q), with the
reward R, its prediction q and the weight w of `bandits.offline`; its mean is the doubly robust value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits import Log
from bandits.anytime.differences import asymptotic_interval
from protos.messages import Estimate
from router.answers.costs import costs_of
from router.answers.estimates import estimate
from router.call import Vector
from router.config import Route as Settings


@dataclass(frozen=True, slots=True)
class Paired:
    """What a target would have earned at n rewarded decisions, and how much more that is; in the reward's unit."""

    scores: Vector  # [n]
    lift: Vector  # [n], each less the reward that there was
    net: Vector | None  # [n], the lift less what the target's decision costs more; None where no cost is declared


def paired(log: Log, target: Vector, q: Vector, settings: Settings) -> Paired:
    """The scores of `target` [n, K] by the predictions `q` [n, K], both in parts of the range of rewards."""
    low, width = settings.reward.low, settings.reward.high - settings.reward.low
    chosen = q[np.arange(len(log)), log.arms]
    # So written, it is 0 to the last digit where the target would surely have done the same.
    lift = width * ((target * q).sum(axis=1) - chosen + (log.weights(target) - 1.0) * (log.rewards - chosen))
    costs = costs_of(settings)
    net = None if costs is None else lift - (target @ costs - costs[log.arms])
    return Paired(low + width * log.rewards + lift, lift, net)


def mean_difference(differences: Vector, *, alpha: float) -> Estimate:
    """The mean of differences [n], with an interval from a hundred on that holds at all times; 0 if none differs."""
    if not differences.any():
        return estimate(0.0, 0.0, 0.0)
    n, total = len(differences), float(differences.sum())
    return estimate(total / n, *asymptotic_interval(n, total, float(differences @ differences), alpha=alpha))


def times(n: int, mean: Estimate) -> Estimate:
    """The total of n numbers, from their mean."""
    total = Estimate(value=n * mean.value)
    if mean.HasField("low"):
        total.low, total.high = n * mean.low, n * mean.high
    return total
