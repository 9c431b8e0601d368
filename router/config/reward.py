"""What clients report: rewards and metrics."""

from __future__ import annotations

from router.config.struct import GREATEST, Struct


class Range(Struct, frozen=True):
    """What a reward may be."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (abs(self.low) <= GREATEST and abs(self.high) <= GREATEST):
            raise ValueError(f"low and high must be numbers from {-GREATEST} to {GREATEST}")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")


class Metric(Struct, frozen=True):
    """A business value that clients report beside the reward."""

    unit: str
