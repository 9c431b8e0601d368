"""Exponential weights: for rewards that follow no distribution, or one that an opponent chooses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bandits.checks import own_sums
from bandits.counts import Arms, Counts, per_mask, plays_and_rewards
from bandits.policy import Fitted, Vector

LEAST = 1e-6  # gamma: a single loss weighs up to 1 / gamma
MOST = 1e3  # rate


@dataclass(frozen=True, slots=True)
class Exp3IX(Counts):
    """Each arm in proportion to exp(-eta L), L the estimate of what it would have lost, had it always been chosen.

    A reward r counts as the loss (1 - r) / (propensity + gamma), by the propensity that was logged, and L is the sum
    of these: so exponential weights, too, learn by addition, in any order and on any replica. Each row is
    (n, Σr, Σr², L). Dividing by the propensity makes up for the rounds in which the arm was not chosen; gamma, the
    implicit exploration, keeps an unlikely arm's loss from weighing more than 1 / gamma, and so a long run of bad luck
    from deciding. The greater it is, the more the other arms are tried. As rows of another gamma do not add up to
    these, it is part of the layout.

    eta = rate * sqrt(2 ln K / (K n)), with K allowed arms and n plays of all arms. For T plays in all, theory asks for
    `gamma` = sqrt(ln K / (2 K T)): 0.01 is that of about 1,600 plays of 5 arms. Under forgetting n stops growing, and
    the policy follows a best arm that changes.
    G. Neu, "Explore no more: improved high-probability regret bounds for non-stochastic bandits", NeurIPS 2015.
    """

    gamma: float = 0.01
    rate: float = 1.0

    def __post_init__(self) -> None:
        if not LEAST <= self.gamma <= 1.0:
            raise ValueError(f"gamma: must lie between {LEAST:g} and 1, got {self.gamma}")
        if not 0.0 < self.rate <= MOST:
            raise ValueError(f"rate: must be above 0 and up to {MOST:g}, got {self.rate}")

    @property
    def layout(self) -> str:
        return f"exp3_ix:{float(self.gamma)}"

    @property
    def width(self) -> int:
        return 4

    def delta(self, reward: float, context: Vector | None, propensity: float) -> Vector:
        """One more play and its loss: (1, r, r², (1 - r) / (propensity + gamma)). Raises ValueError as Counts does."""
        counts = Counts().delta(reward, context, propensity)
        return np.append(counts, (1.0 - reward) / (propensity + self.gamma))

    def fit(self, sums: Vector) -> Fitted:
        own = own_sums(sums, self.width)
        plays, rewards = plays_and_rewards(own[:, :3])
        losses, failures = own[:, 3], plays - rewards
        slack = 1e-9 * plays / self.gamma + 1e-300  # forgetting and merging round
        wrong = np.flatnonzero(
            (losses < failures / (1.0 + self.gamma) - slack) | (losses > failures / self.gamma + slack)
        )
        if wrong.size:
            raise ValueError(
                f"sums: the row of arm {wrong[0]} needs losses between 1 / (1 + gamma) and 1 / gamma"
                " times the number of plays less the sum of rewards"
            )
        squared_rate = 2.0 * self.rate**2 / max(plays.sum(), 1.0)

        def share(arms: Arms) -> Vector:
            eta = math.sqrt(squared_rate * math.log(len(arms)) / len(arms))
            p: Vector = np.exp(-eta * (losses[arms] - losses[arms].min()))
            p /= p.sum()
            return p

        return per_mask(len(plays), share)
