"""A guard of the budget: challengers are tried only as far as the champion's reward can bear it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numba
import numpy as np

from bandits.anytime.rates import MOST, rate_interval
from bandits.checks import own_sums
from bandits.counts import plays_and_rewards
from bandits.kernels import BYTES, VECTOR, direct, kernel
from bandits.policy import Fitted, Policy, Vector
from bandits.wrapper import Wrapper, rewritten


@kernel(numba.void(numba.int64, VECTOR, numba.float64, numba.float64, numba.float64[::1], BYTES), nogil=False)
def hold_back(champion: int, lower: Vector, greatest: float, spare: float, p: Vector, mask: bytes) -> None:
    """Move what the budget does not bear, in place, from arms that may be worse than the champion to the champion.

    `lower` bounds each arm's mean, `greatest` is what the champion's may be, and `spare` is what a play may cost.
    """
    if not mask[champion]:
        return
    cost = 0.0
    for k in range(len(p)):
        if k != champion and lower[k] < greatest:
            cost += p[k] * (greatest - lower[k])
    if cost <= spare:
        return
    borne = spare / cost
    for k in range(len(p)):
        if k != champion and lower[k] < greatest:
            p[champion] += (1.0 - borne) * p[k]
            p[k] *= borne


_hold_back = direct(hold_back)


@dataclass(frozen=True, slots=True)
class Conservative(Wrapper):
    """The policy inside, held back so that no more than `share` of the champion's reward is put at risk.

    With probability 1 - alpha, at all times together, what a play is expected to earn is at least (1 - share) of the
    champion's mean. A challenger whose mean is surely no less than the champion's keeps its probability. That of the
    others is scaled down together, and the rest goes to the champion, until what a play may cost is borne:

        Σ p_a (μ - L_a) <= share·μ + B / plays
        B = Σ_{i ≠ champion} n_i·L_i + n_champion·μ - (1 - share)·μ·Σ n_i

    with L_a a lower bound of each mean and μ an upper one of the champion's; what is borne there is borne at any lesser
    mean, as both sides are linear in μ and all is borne at 0. B is the budget: what was earned beyond what had to be.
    `plays` says how many decisions are taken on one fit at most, and so how thinly the budget is spread. With 1, a
    challenger has all of its probability wherever the budget bears one more play of it, as in the source. By default
    it is infinite: nothing saved is spent, each play answers for itself, and the promise holds however many decisions
    are taken before the next fit and however late rewards arrive. In the beginning, when no arm is known, the
    challengers so share `share` of the plays.

    The bounds are `rate_interval`'s, with alpha spread over the arms. They hold for rewards in [0, 1] whose mean at
    each arm stays the same, whatever the context. So with contexts, with forgetting, in a world that drifts, the guard
    is a brake and no theorem. Where the champion is not allowed there is nothing to compare with, and the policy inside
    decides alone.
    Y. Wu, R. Shariff, T. Lattimore, C. Szepesvári, "Conservative bandits", ICML 2016; here a probability instead of a
    yes or no.
    Raises ValueError for a champion that is no index, a share outside (0, 1], an alpha outside (0, 1), plays below 1.
    """

    policy: Policy
    champion: int
    share: float = 0.05
    alpha: float = 0.05
    plays: float = math.inf

    def __post_init__(self) -> None:
        if not self.champion >= 0:
            raise ValueError(f"champion: must be the index of an arm, got {self.champion}")
        if not 0.0 < self.share <= 1.0:  # at 0, no challenger would ever be tried
            raise ValueError(f"share: must be above 0 and up to 1, got {self.share}")
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(f"alpha: must lie between 0 and 1, got {self.alpha}")
        if not self.plays >= 1.0:
            raise ValueError(f"plays: one decision at least is taken on a fit, got {self.plays}")

    def fit(self, sums: Vector) -> Fitted:
        """Fit the policy inside to sums of shape [K, width], and work out what the budget bears.

        Raises ValueError where the policy inside does, and for a champion that is none of the K arms.
        """
        champion = self.champion
        own = own_sums(sums, self.width)
        plays, rewards = plays_and_rewards(own[:, :3])
        if champion >= len(plays):
            raise ValueError(f"champion: {champion} is none of the {len(plays)} arms, which count from 0")
        if plays.max() > MOST:
            raise ValueError(f"sums: arm {plays.argmax()} has more than 2^53 plays, beyond which float64 cannot count")
        bounds = [
            rate_interval(earned, n, alpha=self.alpha / len(plays))
            for earned, n in zip(rewards.tolist(), plays.tolist(), strict=True)
        ]
        lower, greatest = np.array([low for low, _ in bounds]), bounds[champion][1]
        earned = np.delete(plays * lower, champion).sum() + plays[champion] * greatest
        budget = earned - (1.0 - self.share) * plays.sum() * greatest
        spare = max(self.share * greatest + budget / self.plays, 0.0)
        return rewritten(self.policy, own, partial(_hold_back, champion, lower, greatest, spare))
