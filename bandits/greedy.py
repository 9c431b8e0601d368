"""Epsilon-greedy: mostly the arm that looks best, sometimes any."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bandits.counts import Arms, Counts, per_mask, plays_and_rewards
from bandits.policy import Fitted, Vector


@dataclass(frozen=True, slots=True)
class EpsilonGreedy(Counts):
    """`epsilon` shared equally among the allowed arms, the rest equally among those of the best mean reward.

    An arm without rewards counts as best: whoever has not been tried yet is tried first. So with nothing learnt all
    arms are equal.

    `epsilon` stays for the first `constant_plays` of all arms together, then falls as one over the plays: to
    epsilon * constant_plays / n after n of them. Infinite, the default: it never falls. Under forgetting the plays stop
    growing, and so epsilon stops falling, as it should where the best arm may change.
    P. Auer, N. Cesa-Bianchi, P. Fischer, "Finite-time analysis of the multiarmed bandit problem", Machine Learning 47
    (2002): their epsilon_n = min(1, c K / (d^2 n)) is `epsilon` = 1 and `constant_plays` = c K / d^2, with K arms
    and d no more than what the best mean reward has over the next. For c > 5 the regret is logarithmic.
    """

    epsilon: float = 0.1
    constant_plays: float = math.inf

    def __post_init__(self) -> None:
        if not 0.0 <= self.epsilon <= 1.0:
            raise ValueError(f"epsilon: must lie in [0, 1], got {self.epsilon}")
        if not self.constant_plays > 0.0:  # true for NaN too
            raise ValueError(f"constant_plays: must be above 0, or infinite to decay never, got {self.constant_plays}")

    def fit(self, sums: Vector) -> Fitted:
        plays, rewards = plays_and_rewards(sums)
        mean = np.full(len(plays), np.inf)
        np.divide(rewards, plays, out=mean, where=plays > 0)
        decayed = plays.sum() > self.constant_plays
        epsilon = self.epsilon * self.constant_plays / plays.sum() if decayed else self.epsilon

        def share(arms: Arms) -> Vector:
            best = mean[arms] == mean[arms].max()
            p = np.full(len(arms), epsilon / len(arms))
            p[best] += (1.0 - epsilon) / np.count_nonzero(best)
            return p

        return per_mask(len(plays), share)
