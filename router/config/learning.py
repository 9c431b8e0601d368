"""What surrounds a policy: the least it may give an arm, what it may risk, what it forgets and where it begins."""

from __future__ import annotations

from router.config.struct import Name, Struct, check_positive


class Budget(Struct, frozen=True):
    """How much of the champion's reward may be put at risk while other arms are tried."""

    share: float = 0.05  # at most this part of what the champion would have earned
    alpha: float = 0.05  # the promise is kept with probability 1 - alpha

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:  # at 0, no other arm would ever be tried
            raise ValueError(f"share: must be above 0 and up to 1, got {self.share}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha: must lie between 0 and 1, got {self.alpha}")


class WarmStart(Struct, frozen=True):
    """To begin with what another route has logged about arms of the same names."""

    route: Name  # whose log is read
    weight: float = 1.0  # of each of its rewards

    def __post_init__(self) -> None:
        check_positive(weight=self.weight)


class Retention(Struct, frozen=True):
    """How long decisions and what became of them are kept. What was learnt from them stays."""

    seconds: float | None = None  # after which a decision is forgotten
    decisions: int | None = None  # beyond which the oldest are

    def __post_init__(self) -> None:
        if self.seconds is None and self.decisions is None:
            raise ValueError("seconds: give this or decisions, or both")
        if self.seconds is not None:
            check_positive(seconds=self.seconds)
        if self.decisions is not None:
            check_positive(decisions=self.decisions)
