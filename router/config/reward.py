"""What clients report: rewards, what they are worked out from, how long they may take, and metrics."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal, TypeAlias

from router.call import REWARD, TRUTH
from router.config.struct import GREATEST, Struct, check_positive


class Range(Struct, frozen=True):
    """What a number may be."""

    low: float = 0.0  # the least
    high: float = 1.0  # the greatest

    def __post_init__(self) -> None:
        if not (abs(self.low) <= GREATEST and abs(self.high) <= GREATEST):
            raise ValueError(f"low and high must be numbers from {-GREATEST} to {GREATEST}")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")


# ------------------------------------------------------------------------------------------------- scoring rules


class Score(Struct, frozen=True, tag_field="kind"):
    """A reward that is worked out from what the arm predicted and what really happened: `truth`, in feedback."""

    output: str = ""  # the tensor that holds the prediction; empty: the only one
    column: int = 0  # of its one row: which number is the prediction

    def __post_init__(self) -> None:
        if self.column < 0:
            raise ValueError(f"column: must not be below 0, got {self.column}")


class AccuracyScore(Score, frozen=True, tag="accuracy"):
    """All where the prediction is the true class, nothing where it is another."""

    threshold: float | None = None  # of a score: from here on the prediction is class 1, below it is 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold: must be a finite number, got {self.threshold}")


class BrierScore(Score, frozen=True, tag="brier"):
    """The square of how far a probability was from what happened."""


class LogScore(Score, frozen=True, tag="log_loss"):
    """The surprise at what happened, for a probability."""

    least: float = 1e-3  # a probability closer to 0 or 1 counts as this far from it, for surprise has no end

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.least < 0.5:  # noqa: PLR2004  # where all predictions would be one
            raise ValueError(f"least: must be above 0 and below 0.5, got {self.least}")


class PinballScore(Score, frozen=True, kw_only=True, tag="pinball"):
    """What a forecast of a quantile loses: missing to one side costs more than to the other."""

    quantile: float  # that is forecast, between 0 and 1
    worst: float  # a loss that earns nothing; greater ones earn no less

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile: must lie between 0 and 1, got {self.quantile}")
        check_positive(worst=self.worst)


class PnlScore(Score, frozen=True, tag="pnl"):
    """What a position earns, in the unit of the reward. The prediction is the position, the truth what a unit paid."""

    cost: float = 0.0  # of one unit of position, either way
    limit: float | None = None  # the greatest position, either way

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.cost <= GREATEST:
            raise ValueError(f"cost: must not be below 0, got {self.cost}")
        if self.limit is not None:
            check_positive(limit=self.limit)


AnyScore: TypeAlias = AccuracyScore | BrierScore | LogScore | PinballScore | PnlScore


# -------------------------------------------------------------------------------------------------------- rewards


class Reward(Range, frozen=True):
    """What a reward may be, where it comes from, and what becomes of those that are late or wrong.

    With a `default`, each decision counts once, ten seconds after its window is over: for the policy, for the report,
    and for all that is judged by rewards. A reward that came in time is kept safe, and counts then, as the defaults of
    those do that had none. Were it counted at once, an arm that is drawn more of late would be known by its successes
    alone, and be drawn more yet. So the route learns a window later. One that has to learn at once leaves `default`
    out: then rewards count as they come, and silence never does, so clients report failures too, and as soon as
    successes; else all means are too high. Metrics always count as they come.
    """

    window_seconds: float | None = None  # after a decision in which its reward has to come; none: whenever it comes
    default: float | None = None  # the reward of a decision whose window ended without one; none: it has no reward
    corrections: Literal["refuse", "replace"] = "refuse"  # a number that is known already, or comes late
    score: AnyScore | None = None  # works the reward out of `truth`; none: clients report the reward itself

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window_seconds is not None:
            check_positive(window_seconds=self.window_seconds)
        if self.default is not None and self.window_seconds is None:
            raise ValueError("default: belongs to window_seconds, which is not given")
        if self.default is not None and not self.low <= self.default <= self.high:
            raise ValueError(f"default: must lie between low and high, got {self.default}")


class Metric(Struct, frozen=True):
    """A business value that clients report beside the reward."""

    unit: str  # for people, such as GBP
    better: Literal["higher", "lower"] = "higher"  # which end is the good one


def check_metrics(metrics: Collection[str]) -> None:
    """Raises ValueError for a metric whose name stands for something else in feedback."""
    for name in (REWARD, TRUTH):
        if name in metrics:
            raise ValueError(f"metrics: {name!r} is no name for a metric: feedback has a field of that name")
