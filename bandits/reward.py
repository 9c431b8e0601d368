"""The range that a route declares for its rewards. Inside the policies every reward is its place in it, from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

GREATEST = 1e100
"""A range lies within ± this: the sums of its rewards' squares must stay finite."""


@dataclass(frozen=True, slots=True)
class Range:
    """From `low` to `high`, in the reward's own unit. Raises ValueError unless low is below high, both finite."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        for name, bound in ("low", self.low), ("high", self.high):
            if not abs(bound) <= GREATEST:  # true for NaN too
                raise ValueError(f"{name}: must be a number from {-GREATEST} to {GREATEST}, got {bound}")
        if not self.low < self.high:
            raise ValueError(f"low: must be below high, got {self.low} and {self.high}")

    def share(self, value: float) -> float:
        """Return where in the range a reward lies: 0 at low, 1 at high.

        Raises ValueError when it is outside or not a number. It is not quoted: rewards are private.
        """
        if not self.low <= value <= self.high:
            raise ValueError(f"reward: must be a number from {self.low} to {self.high}; this one is outside, or none")
        return (value - self.low) / (self.high - self.low)  # rounding is monotone: never outside [0, 1]

    def value(self, share: float) -> float:
        """Return the reward at a place in the range, from 0 to 1: the inverse of `share`, but for rounding.

        So a mean of shares, or a bound of one, is told in the reward's unit. Raises ValueError outside [0, 1].
        """
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"share: must be a number from 0 to 1, got {share}")
        value = (1.0 - share) * self.low + share * self.high  # exact at both ends
        return min(max(value, self.low), self.high)
