"""A fixed split of the traffic: the A/B test, the canary, the ramp."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bandits.counts import Arms, Counts, per_mask, plays_and_rewards
from bandits.policy import Fitted, Vector


@dataclass(frozen=True, slots=True)
class Split(Counts):
    """Each arm in proportion to its weight, one weight for each arm: (90, 10) is (0.9, 0.1).

    Among the allowed arms the proportions stay. An arm of weight 0 is never chosen, even when it alone is allowed.
    """

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.weights:
            raise ValueError("weights: name one for each arm")
        if not all(math.isfinite(weight) and weight >= 0 for weight in self.weights):
            raise ValueError(f"weights: must be finite and not below 0, got {self.weights}")
        if not any(self.weights):
            raise ValueError("weights: one at least must be above 0")

    def fit(self, sums: Vector) -> Fitted:
        """Learn nothing: the sums, of shape [K, 3], are kept for the statistics and for the policy that comes next."""
        plays, _ = plays_and_rewards(sums)
        weights = np.array(self.weights, dtype=np.float64)
        if len(plays) != len(weights):
            raise ValueError(f"sums: {len(plays)} arms, but the split has {len(weights)} weights")

        def share(arms: Arms) -> Vector:
            greatest = weights[arms].max()
            if greatest == 0.0:
                raise ValueError("allowed: every allowed arm has weight 0 in the split")
            p: Vector = weights[arms] / greatest  # first, so that no sum of weights overflows
            p /= p.sum()
            return p

        return per_mask(len(weights), share)
