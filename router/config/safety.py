"""What keeps a route safe while it changes: guardrails, canaries, schedules, shadows, failover."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

import msgspec

from router.config.reward import Range
from router.config.struct import GREATEST, Name, Struct, check_positive, check_share
from router.errors import listed

Action: TypeAlias = Literal["eject", "freeze", "roll_back", "alert"]
"""What is done when a guardrail breaks: the arm is out until an operator brings it back; the policy learns no more;
the canary is taken back; people are told."""


class Failover(Struct, frozen=True):
    """Whether another arm is asked when one fails in a way that may pass, within the deadline.

    What stands in is drawn with p_a / (1 - Σ p_failed). The probability that an arm came to answer at all is p_a / Σ p
    of all that would have answered, and nobody knows who would have: an outcome of an arm that stood in has no
    propensity. Weighting it by the inverse of any counts twice the moments at which an arm was down; only the first
    draw, weighted by 1 / p_a, and nothing for its stand-ins is unbiased whoever is down. Hence evaluation, comparisons
    and policies that weight by propensity leave out decisions with failed arms. Plain means of an arm's rewards may
    take them in, which is `answered`, as long as failing has nothing to do with the reward.
    """

    attempts: int = 0  # further arms that are asked
    learn: Literal["none", "answered"] = "none"  # whether the policy learns from an arm that stood in for another

    def __post_init__(self) -> None:
        if self.attempts < 0:
            raise ValueError(f"attempts: must not be below 0, got {self.attempts}")


# ------------------------------------------------------------------------------------------------ guardrails


class Guardrail(Struct, frozen=True, tag_field="watch"):
    """Something that may not go wrong with an arm, judged after every call by bounds that hold at all times at once."""

    action: Action = "alert"  # when it breaks
    alpha: float = 0.01  # probability that it ever breaks for arms that keep to it; a canary shares its own instead

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)


class Rate(Guardrail, frozen=True):
    """A part of the calls that may not be large."""

    times: float | None = None  # it may be so many times the champion's
    floor: float = 0.0  # a part below this is never held against an arm that has more than the champion

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.times is not None and not (math.isfinite(self.times) and self.times >= 1.0):
            raise ValueError(f"times: must be at least 1, got {self.times}")
        check_share(floor=self.floor)
        if self.floor and self.times is None:
            raise ValueError("floor: belongs to times, which is not given")


class ErrorGuardrail(Rate, frozen=True, tag="errors"):
    """How many calls an arm may fail: by its own fault, not by its caller's."""

    most: float | None = None  # part of the calls

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.most is not None:
            _check_inside(most=self.most)
        _check_given(most=self.most, times=self.times)


class LatencyGuardrail(Rate, frozen=True, kw_only=True, tag="latency"):
    """How slow an arm may be: a quantile of its latency, or how many times the champion's slow calls it may have."""

    seconds: float  # a call that takes longer is slow
    quantile: float | None = None  # of latency that must be within `seconds`: 0.99 lets 1 % of the calls be slow

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(seconds=self.seconds)
        if self.quantile is not None:
            _check_inside(quantile=self.quantile)
        _check_given(quantile=self.quantile, times=self.times)


class RewardGuardrail(Guardrail, frozen=True, tag="reward"):
    """How little an arm may earn, in the route's own units."""

    least: float | None = None  # mean reward
    margin: float | None = None  # it may earn so much less than the champion

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_margin(self.margin)
        _check_given(least=self.least, margin=self.margin)


class MetricGuardrail(Guardrail, frozen=True, kw_only=True, tag="metric"):
    """What the mean of a declared metric may be. Values outside `range` count as its ends."""

    metric: Name  # one of the route's
    range: Range  # of its values
    worse: Literal["lower", "higher"] = "lower"  # which end is the bad one
    bound: float | None = None  # the mean may not be worse than this
    margin: float | None = None  # nor worse than the champion's by more than this

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_margin(self.margin)
        _check_given(bound=self.bound, margin=self.margin)
        if self.bound is not None and not self.range.low <= self.bound <= self.range.high:
            raise ValueError(f"bound: must lie in the range, got {self.bound}")


AnyGuardrail: TypeAlias = ErrorGuardrail | LatencyGuardrail | RewardGuardrail | MetricGuardrail


def check_guardrails(
    guardrails: Mapping[str, AnyGuardrail], *, reward: Range, metrics: Collection[str], canary: Canary | None
) -> None:
    """Raises ValueError("NAME: SENTENCE") for the first that does not fit the route."""
    for name, guardrail in guardrails.items():
        if isinstance(guardrail, MetricGuardrail) and guardrail.metric not in metrics:
            raise ValueError(
                f"{name}: the route declares the metrics {listed(metrics) or '(none)'}, not {guardrail.metric!r}"
            )
        least = guardrail.least if isinstance(guardrail, RewardGuardrail) else None
        if least is not None and not reward.low <= least <= reward.high:
            raise ValueError(f"{name}: least must lie in the route's range of rewards, got {least}")
        if guardrail.action == "roll_back" and canary is None:
            raise ValueError(f"{name}: the action roll_back is for a route with a canary")


# ------------------------------------------------------------------------------------------- canary, schedule


class Step(Struct, frozen=True):
    """How much a canary gets, and what has to be seen before the next step."""

    share: float  # of the calls
    seconds: float = 0.0  # that it lasts at least
    calls: int = 0  # that the canary has to have had in it
    rewards: int = 0  # of the canary, that have to have come in it

    def __post_init__(self) -> None:
        _check_inside(share=self.share)
        for key in ("seconds", "calls", "rewards"):
            value = getattr(self, key)
            if not 0 <= value < math.inf:
                raise ValueError(f"{key}: must not be below 0, got {value}")
        if not (self.seconds or self.calls or self.rewards):
            raise ValueError("seconds: say how long a step lasts, by seconds, calls or rewards")


class Canary(Struct, frozen=True):
    """A new arm that gets more of the calls step by step, and all of them on evidence, never by time alone.

    The guardrails with the action roll_back judge it. It is promoted at its last step, once every one of them is known
    to be kept and, where the objective is the reward, it is known to earn more than the champion: or, with a margin
    and `non_inferior`, not less by the margin. It is rolled back when a guardrail breaks, or when it is known to earn
    less by more than the margin. Where nothing is known it stays where it is.
    """

    arm: str  # the new one
    steps: list[Step]  # how it gets more, one after the other
    champion: str = ""  # the arm that it would replace; empty: the route's
    objective: Literal["reward", "guardrails"] = "reward"  # what has to be known for a promotion
    margin: float = 0.0  # in the route's units of reward
    non_inferior: bool = False  # whether it is enough not to be worse by the margin
    alpha: float = 0.05  # probability of any wrong promotion or roll-back, over all looks and guardrails together
    run: str = ""  # change it to begin anew

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("steps: at least one is needed")
        shares = [step.share for step in self.steps]
        if any(later < earlier for earlier, later in pairwise(shares)):
            raise ValueError(f"steps: shares must not fall, got {shares}")
        _check_alpha(self.alpha)
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"margin: must not be below 0, got {self.margin}")
        if self.non_inferior and not self.margin:
            raise ValueError("margin: must be above 0 where it is enough not to be worse by it")
        if self.arm == self.champion:
            raise ValueError("champion: must be another arm than the canary")


def check_canary(
    canary: Canary, *, arms: Collection[str], champion: str, guardrails: Mapping[str, AnyGuardrail]
) -> None:
    """Raises ValueError("KEY: SENTENCE") for a canary that does not fit the route, whose champion is given."""
    for key, arm in ("arm", canary.arm), ("champion", canary.champion or champion):
        if arm not in arms:
            raise ValueError(f"{key}: {arm!r} is none of the arms ({listed(arms)})")
    if canary.arm == (canary.champion or champion):
        raise ValueError(f"arm: {canary.arm!r} is the champion; a canary is another arm")
    if canary.objective == "guardrails" and not any(each.action == "roll_back" for each in guardrails.values()):
        raise ValueError("objective: there are no guardrails with the action roll_back that could be kept")


class Moment(Struct, frozen=True):
    """The shares of the arms from a time on."""

    at: Annotated[datetime, msgspec.Meta(tz=True)]  # with a zone: "2026-03-02T08:00:00+01:00"
    shares: dict[Name, float]  # by arm, in any unit; those that are not named get nothing

    def __post_init__(self) -> None:
        if not all(math.isfinite(share) and share >= 0 for share in self.shares.values()):
            raise ValueError("shares: must be finite and not below 0")
        if not any(self.shares.values()):
            raise ValueError("shares: one at least must be above 0")


class Schedule(Struct, frozen=True):
    """A split that changes at given times, at once or gradually. Before the first of them, the first holds."""

    moments: list[Moment]  # in the order of time
    between: Literal["step", "linear"] = "step"  # how shares get from one moment to the next

    def __post_init__(self) -> None:
        if not self.moments:
            raise ValueError("moments: at least one is needed")
        times = [moment.at for moment in self.moments]
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise ValueError("moments: each must come after the one before")


def check_schedule(schedule: Schedule, arms: Collection[str]) -> None:
    """Raises ValueError("moments: SENTENCE") for a share of an arm that the route does not have."""
    unknown = {arm for moment in schedule.moments for arm in moment.shares} - set(arms)
    if unknown:
        raise ValueError(f"moments: {listed(unknown)}: none of the arms ({listed(arms)})")


# -------------------------------------------------------------------------------------------------- shadows


class Shadow(Struct, frozen=True):
    """An arm that gets copies of requests once they are answered. Its answers are compared and thrown away."""

    percent: float = 100.0  # of the requests
    output: str = ""  # the tensor that is compared; empty: the only one, or the first
    tolerance: float = 0.0  # numbers that differ by more disagree
    timeout_seconds: float = 5.0  # a copy that takes longer has failed
    max_in_flight: int = 100  # copies; beyond, they are dropped and counted

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:  # noqa: PLR2004  # a percentage
            raise ValueError(f"percent: must be above 0 and up to 100, got {self.percent}")
        if not 0 <= self.tolerance <= GREATEST:
            raise ValueError(f"tolerance: must not be below 0, got {self.tolerance}")
        check_positive(timeout_seconds=self.timeout_seconds, max_in_flight=self.max_in_flight)


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha < 0.5:  # noqa: PLR2004  # above, a coin would be evidence
        raise ValueError(f"alpha: must be above 0 and below 0.5, got {alpha}")


def _check_inside(**values: float) -> None:
    for key, value in values.items():
        if not 0.0 < value < 1.0:
            raise ValueError(f"{key}: must lie between 0 and 1, got {value}")


def _check_given(**values: float | None) -> None:
    if all(value is None for value in values.values()):
        raise ValueError(f"{next(iter(values))}: give this or {listed(list(values)[1:])}, or both")


def _check_margin(margin: float | None) -> None:
    if margin is not None and not (math.isfinite(margin) and margin >= 0):
        raise ValueError(f"margin: must not be below 0, got {margin}")
