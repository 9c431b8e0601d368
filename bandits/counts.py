"""The layout "counts", a row of (n, Σr, Σr²) for each arm, and the fitted form of the policies that learn from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bandits.checks import check_propensity, check_reward, own_sums
from bandits.policy import Fitted, Mask, Vector

Arms: TypeAlias = NDArray[np.intp]

MASKS = 1024  # remembered by one fitted policy: far more than rules and guards make, yet bounded


class Counts:
    """Half of a policy: everything but `fit`."""

    __slots__ = ()

    @property
    def layout(self) -> str:
        return "counts"

    @property
    def width(self) -> int:
        return 3

    @property
    def features(self) -> int:
        return 0

    def delta(self, reward: float, context: Vector | None, propensity: float) -> Vector:
        """One more play: (1, r, r²). Raises ValueError for a reward outside [0, 1] or a propensity outside (0, 1]."""
        check_reward(reward)
        check_propensity(propensity)
        return np.array([1.0, reward, reward * reward])


def plays_and_rewards(sums: Vector) -> tuple[Vector, Vector]:
    """Return n and Σr of each arm, out of sums of shape [K, 3].

    Raises ValueError where the sums cannot have come from rewards in [0, 1].
    """
    plays, rewards, _ = own_sums(sums, Counts().width).T
    slack = 1e-9 * plays  # forgetting and merging round
    wrong = np.flatnonzero((plays < 0) | (rewards < -slack) | (rewards > plays + slack))
    if wrong.size:
        raise ValueError(f"sums: the row of arm {wrong[0]} needs 0 <= sum of rewards <= number of plays")
    return plays, np.clip(rewards, 0.0, plays)


def per_mask(arms: int, share: Callable[[Arms], Vector]) -> Fitted:
    """Remember p for each set of allowed arms: without a context it depends on nothing else.

    `share` takes the indices of the allowed arms, one or more in rising order, and returns their probabilities.
    p is read-only, as every caller gets the same. That of all arms is worked out now, the others when first asked for.
    """
    memory: dict[bytes, Vector] = {}

    def worked_out(mask: bytes) -> Vector:
        if len(mask) != arms:
            raise ValueError(f"allowed: must be bool[{arms}], one for each arm, not {len(mask)} bytes")
        indices = np.flatnonzero(np.frombuffer(mask, dtype=np.uint8))
        if not indices.size:
            raise ValueError("allowed: no arm is allowed")
        p = np.zeros(arms)
        p[indices] = share(indices)
        p.flags.writeable = False
        if len(memory) < MASKS:
            memory[mask] = p
        return p

    def fitted(_: Vector | None, allowed: Mask) -> Vector:
        p = remembered(allowed.tobytes())
        return worked_out(allowed.tobytes()) if p is None else p

    remembered = memory.get
    worked_out(b"\1" * arms)
    return fitted
