"""What a reward adds: to what the policy learns, and to the plain tallies that reports read."""

from __future__ import annotations

import math

import numpy as np

from router.call import Add, Credit, Decision, Reward, Vector
from router.config import GREATEST
from router.config import Route as Settings
from router.errors import BadReward, listed
from router.route import Route

REWARD = "reward"
"""Layout of the plain tally of an arm's rewards: n, sum, sum of squares."""


def metric_layout(metric: str) -> str:
    """Layout of the tally of a metric: n, sum, sum of squares."""
    return f"metric:{metric}"


def policy_layout(route: Route) -> str:
    """Layout of what the policy learns: policies of one layout take over from each other, a new range starts clean."""
    reward = route.settings.reward
    return f"policy:{route.policy.layout}:{reward.low!r}:{reward.high!r}"


def credit(route: Route, decision: Decision, reward: Reward) -> Credit:
    """The reward with all that it adds. Raises BadReward when the route cannot take it."""
    check_reward(route.name, route.settings, reward)
    low, high = route.settings.reward.low, route.settings.reward.high
    share = min(max((reward.value - low) / (high - low), 0.0), 1.0)
    context = None if decision.context is None else np.array(decision.context)
    learnt = route.policy.delta(share, context, decision.propensity)
    rows = {
        policy_layout(route): learnt,
        REWARD: _tally(reward.value),
        **{metric_layout(name): _tally(value) for name, value in reward.metrics.items()},
    }
    return Credit(reward, tuple(Add(route.name, layout, decision.arm, row) for layout, row in rows.items()))


def check_reward(route: str, settings: Settings, reward: Reward) -> None:
    """Raises BadReward, naming what is wrong, unless the route can take this reward and its metrics."""
    low, high = settings.reward.low, settings.reward.high
    if not low <= reward.value <= high:
        raise BadReward(f"reward: route {route!r} takes {low} to {high}; this one is outside, or not a number")
    for name, value in reward.metrics.items():
        if name not in settings.metrics:
            raise BadReward(
                f"metrics: route {route!r} declares {listed(settings.metrics) or 'none'}, not {name[:100]!r}"
            )
        if not abs(value) <= GREATEST:
            raise BadReward(f"metrics: {name} must be a number from {-GREATEST} to {GREATEST}")
    if reward.truth is not None and not math.isfinite(reward.truth):
        raise BadReward("truth: must be a finite number")


def _tally(value: float) -> Vector:
    return np.array([1.0, value, value * value])
