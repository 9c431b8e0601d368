"""What decisions cost, as arms declare it: known, in the unit of the reward, and not estimated."""

from __future__ import annotations

import numpy as np

from router.call import Vector
from router.config import Route as Settings


def costs_of(settings: Settings) -> Vector | None:
    """What a decision for each arm costs, [K], 0 where an arm declares nothing; None where no arm does."""
    costs = [arm.cost for arm in settings.arms.values()]
    if all(cost is None for cost in costs):
        return None
    return np.array([cost or 0.0 for cost in costs])


def cost_per_decision(settings: Settings, decisions: Vector) -> float | None:
    """What a decision has cost on average, from how many each arm got [K]; None where nothing is declared."""
    costs = costs_of(settings)
    if costs is None or not decisions.sum() > 0.0:
        return None
    return float(decisions @ costs / decisions.sum())
