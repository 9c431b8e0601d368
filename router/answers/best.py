"""How likely each arm is to be the one that earns the most."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bandits import GaussianThompson, Mask, Policy, Thompson, TopTwoThompson, beta, student
from bandits.anytime.differences import FEWEST, FEWEST_PLAYS
from bandits.wrapper import Wrapper
from router.call import Vector
from router.config.reward import Range
from router.learning.lift import lift_layout
from router.safety.comparisons import WEIGHED, difference_row

POSTERIOR, WEIGHTED = "the policy's posterior", "means weighted by propensities"


def probability_best(
    policy: Policy,
    learnt: Vector,
    sums: Mapping[tuple[str, str], Vector],
    arms: tuple[str, ...],
    answering: Mask,
    reward: Range,
) -> tuple[Vector | None, str]:
    """The probabilities [K], and what they are told from; None and an empty text while nothing can be said.

    A policy of the Thompson family has a posterior: what it believes of `learnt`, its sums. Others have none; for them
    each arm's mean is taken from `sums`, those of the route, at the decisions that could have drawn any arm, weighted
    by 1 / propensity so that it does not matter who was sent where. Near enough such a mean has a Student-t
    distribution. That of course says nothing before a hundred decisions and twenty plays of each arm.
    Arms that are not `answering`, one flag an arm, are not among those that could be the best.
    """
    believed = _posterior(policy, learnt, answering)
    if believed is not None:
        return believed, POSTERIOR
    p = np.zeros(len(arms))
    arms = tuple(arm for arm, answers in zip(arms, answering, strict=True) if answers)
    layout, nothing = lift_layout(arms, reward.low, reward.high), np.zeros(WEIGHED)
    rows = [sums.get((layout, arm), nothing) for arm in arms]
    n = float(sum(row[0] for row in rows))
    if n < FEWEST or min(row[0] for row in rows) < FEWEST_PLAYS:
        return None, ""
    values = np.array([difference_row(row, nothing, n) for row in rows])
    mean = values[:, 1] / n
    deviation = np.sqrt(np.maximum(values[:, 3], values[:, 4])) / n  # what is seen, or what was foreseen
    p[answering] = student.probability_best(mean, np.maximum(deviation, 1e-12), values[:, 5] - 1.0)
    p /= p.sum()
    return p, WEIGHTED


def _posterior(policy: Policy, learnt: Vector, answering: Mask) -> Vector | None:
    while isinstance(policy, Wrapper):
        policy = policy.policy
    if isinstance(policy, TopTwoThompson):
        policy = Thompson(policy.alpha, policy.beta)
    p = np.zeros(len(learnt))
    if isinstance(policy, Thompson):
        p[answering] = beta.probability_best(*policy.posterior(learnt[answering]))
    elif isinstance(policy, GaussianThompson):
        p[answering] = student.probability_best(*policy.posterior(learnt[answering]))
    else:
        return None
    p /= p.sum()
    return p
