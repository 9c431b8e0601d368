"""Forgetting that merges: forward decay. What is added weighs more as time goes on, so nothing is ever rescaled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bandits.policy import Vector

HALF_LIVES = 32
"""In an era, so that a weight is at most 2^32 and a step from era to era is an exact power of two."""

REMEMBERED = 4
"""Eras that count. What is older weighs less than 2^-96: even 2^53 plays make less than 1e-13 of one."""

FARTHEST = 4096  # powers of two, from the least float64 to the greatest and on
MOST_ERAS = 2.0**53  # before and after time 0: beyond, float64 cannot tell one from the next


@dataclass(frozen=True, slots=True)
class HalfLife:
    """Rewards count half after each `seconds`. Not a policy: it says how a policy's rows are weighed by time.

    Time is cut into eras of 32 half-lives, counted from time 0, and the sums of each era are kept apart. A reward of
    time t adds `weight(t) * policy.delta(...)` to its arm's row in the sums of `era(t)`. Learning so stays addition:
    in any order, however late, on any replica. `sums(eras, now)` is what `policy.fit` takes: the sum over all rewards
    of 2^(-(now - t) / seconds) times their delta, so priors, which `fit` adds, are never forgotten.

        rows = eras.setdefault(half_life.era(t), np.zeros((K, policy.width)))
        rows[arm] += half_life.weight(t) * policy.delta(reward, context, propensity)
        fitted = policy.fit(half_life.sums(eras, now))

    Times are seconds from one origin, such as Unix time; replicas need the same one. Steps may stand for seconds.
    G. Cormode, V. Shkapenyuk, D. Srivastava, B. Xu, "Forward decay: a practical time decay model for streaming
    systems", ICDE 2009. Raises ValueError unless the half-life is above 0 and finite.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not (self.seconds > 0.0 and math.isfinite(HALF_LIVES * self.seconds)):
            raise ValueError(f"seconds: must be above 0 and finite, got {self.seconds}")

    @classmethod
    def of_discount(cls, discount: float) -> HalfLife:
        """Return the half-life, in steps, of sums that are multiplied by `discount` at each step: ln 2 / -ln discount.

        As in discounted Thompson sampling. Raises ValueError unless the discount lies between 0 and 1.
        """
        if not 0.0 < discount < 1.0:
            raise ValueError(f"discount: must lie between 0 and 1, got {discount}")
        return cls(math.log(2.0) / -math.log(discount))

    def era(self, time: float) -> int:
        """Return the number of the era in which `time` lies. Raises ValueError for a time that is not finite."""
        return self._place(time)[0]

    def weight(self, time: float) -> float:
        """Return what an event at `time` weighs in the sums of its era: 1 at the era's beginning, 2^32 at its end.

        Raises ValueError for a time that is not finite.
        """
        return math.exp2(self._place(time)[1])

    def oldest(self, now: float) -> int:
        """Return the first era that still counts at `now`: the sums of those before may be deleted."""
        return self.era(now) - REMEMBERED + 1

    def sums(self, eras: Mapping[int, Vector], now: float) -> Vector:
        """Return the decayed sums at `now`, of the shape that each era's sums have; at least one era must be there.

        Eras before `oldest(now)` count nothing. An event that is some half-lives ahead of `now`, as clocks differ,
        weighs more than 1. Raises ValueError for no eras, for eras of different shapes, for a `now` that is not
        finite, and for an era beyond the one after that of `now`, which would drown all others.
        """
        present, half_lives = self._place(now)
        if not eras:
            raise ValueError("eras: name one at least; where nothing is learnt, one of zeros")
        if max(eras) > present + 1:
            raise ValueError(f"eras: {max(eras)} lies in the future, now is era {present}")
        shapes = {np.shape(rows) for rows in eras.values()}
        if len(shapes) > 1:
            raise ValueError(f"eras: their sums must have one shape, not {sorted(shapes)}")
        total = np.zeros(shapes.pop())
        for era in sorted(eras):
            if present - era < REMEMBERED:
                total += relandmark(eras[era], era, present)
        total *= math.exp2(-half_lives)
        return total

    def _place(self, time: float) -> tuple[int, float]:
        """Return the era of `time`, and the half-lives from the era's beginning to it. The remainder is exact."""
        if not math.isfinite(time):
            raise ValueError(f"time: must be finite, got {time}")
        era, seconds = divmod(time, HALF_LIVES * self.seconds)
        if abs(era) > MOST_ERAS:
            raise ValueError(f"time: {time} is too many half-lives of {self.seconds} away from 0")
        return int(era), seconds / self.seconds


def relandmark(sums: Vector, era: int, to: int) -> Vector:
    """Return the sums of one era as part of those of another: times an exact power of two, so nothing is rounded.

    A store may so fold an era into a later one. Exact while float64 reaches: what falls below 1e-308 loses digits and
    then becomes 0. Raises ValueError where it would pass 1e308, many eras back.
    """
    steps = min(max(HALF_LIVES * (era - to), -FARTHEST), FARTHEST)
    with np.errstate(over="ignore"):
        moved: Vector = np.ldexp(np.asarray(sums, dtype=np.float64), steps)
    if not np.isfinite(moved).all():
        raise ValueError(f"sums: not finite, or no longer so when moved from era {era} to {to}")
    return moved
