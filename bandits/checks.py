"""What every policy refuses, each with a sentence that names the argument. Rewards are not quoted: they are private."""

from __future__ import annotations

import numpy as np

from bandits.policy import Vector


def check_reward(reward: float) -> None:
    """Raise ValueError unless the reward lies in [0, 1]."""
    if not 0.0 <= reward <= 1.0:  # false for NaN too
        raise ValueError("reward: must be a number from 0 to 1; scale it by the route's declared range first")


def check_propensity(propensity: float) -> None:
    """Raise ValueError unless the propensity lies in (0, 1]."""
    if not 0.0 < propensity <= 1.0:
        raise ValueError(f"propensity: an arm that was chosen had a probability above 0 and up to 1, not {propensity}")


def own_sums(sums: Vector, width: int) -> Vector:
    """Copy `sums`, so that a fitted policy cannot change under its readers.

    Raise ValueError unless their shape is [K, width] with at least one arm, and every number is finite.
    """
    own = np.array(sums, dtype=np.float64)
    if own.ndim != 2 or own.shape[0] == 0 or own.shape[1] != width:
        raise ValueError(f"sums: must have the shape [arms, {width}] with at least one arm, not {list(own.shape)}")
    broken = np.flatnonzero(~np.isfinite(own).all(axis=1))
    if broken.size:
        raise ValueError(f"sums: the row of arm {broken[0]} holds a number that is not finite")
    return own
