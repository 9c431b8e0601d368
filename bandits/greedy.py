"""Epsilon-greedy: mostly the arm that looks best, sometimes any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.counts import Arms, Counts, per_mask, plays_and_rewards
from bandits.policy import Fitted, Vector


@dataclass(frozen=True, slots=True)
class EpsilonGreedy(Counts):
    """`epsilon` shared equally among the allowed arms, the rest equally among those of the best mean reward.

    An arm without rewards counts as best: whoever has not been tried yet is tried first. So with nothing learnt all
    arms are equal.
    """

    epsilon: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.epsilon <= 1.0:
            raise ValueError(f"epsilon: must lie in [0, 1], got {self.epsilon}")

    def fit(self, sums: Vector) -> Fitted:
        plays, rewards = plays_and_rewards(sums)
        mean = np.full(len(plays), np.inf)
        np.divide(rewards, plays, out=mean, where=plays > 0)

        def share(arms: Arms) -> Vector:
            best = mean[arms] == mean[arms].max()
            p = np.full(len(arms), self.epsilon / len(arms))
            p[best] += (1.0 - self.epsilon) / np.count_nonzero(best)
            return p

        return per_mask(len(plays), share)
