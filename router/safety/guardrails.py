"""Guardrails: what may not go wrong with an arm, and whether it is known to go wrong, from sums that merge by addition.

Every guardrail is about something bad from 0 to 1: a call that failed, a slow one, what a reward lacks of the best. Its
bounds hold at all times at once, so it may be judged after every call: an arm that keeps to it is ever accused with
probability alpha at most. What they take for granted: with a limit, that the calls before say nothing about the next
that the limit does not allow for; against the champion, that arms were drawn by the probabilities in the log. Where a
sticky unit asks many times, its calls are not so many draws, and the bounds are too narrow by that much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from bandits.anytime import Guardrail, difference_guardrail, rate_guardrail
from router.call import REWARD, Vector
from router.config.reward import Range
from router.config.safety import (
    Action,
    AnyGuardrail,
    ErrorGuardrail,
    LatencyGuardrail,
    MetricGuardrail,
    Rate,
    RewardGuardrail,
)
from router.safety.comparisons import WEIGHED, difference_row, odds_guardrail

ERRORS = "errors"

Sums: TypeAlias = Mapping[tuple[str, str], Vector]
"""What was added up for a route, by (layout, arm), as a store keeps it."""


@dataclass(frozen=True, slots=True)
class Bad:
    """Something bad that is watched: a kind of call, or how far an outcome is from the best."""

    name: str  # distinct in every setting that changes what is counted
    outcome: str = ""  # the reward's or metric's name; empty: a kind of call
    seconds: float = 0.0  # beyond which a call is slow; 0: a failed one
    best: float = 0.0  # of the outcome
    worst: float = 1.0

    def part(self, value: float) -> float:
        """How bad an outcome is, from 0, the best, to 1."""
        return min(1.0, max(0.0, (value - self.best) / (self.worst - self.best)))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the mean of something bad may be."""

    name: str  # of the guardrail
    action: Action
    alpha: float  # of each bound, for one arm
    bad: Bad
    most: float | None = None
    times: float | None = None  # that of the champion
    floor: float = 0.0  # below which `times` does not count
    margin: float | None = None  # more than the champion's

    @property
    def count(self) -> int:
        """How many bounds these are."""
        return sum(bound is not None for bound in (self.most, self.times, self.margin))

    def absolute(self) -> Bounds:
        """Those that do not look at the champion."""
        return replace(self, times=None, floor=0.0, margin=None)


@dataclass(frozen=True, slots=True)
class Watch:
    """An arm and its bounds, from a moment on: what was before is not held against it."""

    arm: str
    champion: str
    since: float  # seconds since the epoch
    bounds: tuple[Bounds, ...]
    compared: tuple[Bad, ...] = ()  # what else is compared with the champion, such as the reward

    def calls_layout(self, bad: Bad) -> str:
        """Layout of n and of how much of it was bad, of the arm."""
        return f"watched:{self._run}:{bad.name}"

    def odds_layout(self, bounds: Bounds) -> str:
        """Layout of `odds_row`s, of the arm and the champion."""
        return f"odds:{self._run}:{self.arm}:{self.champion}:{bounds.bad.name}:{bounds.times!r}"

    def weighed_layout(self, bad: Bad) -> str:
        """Layout of `weighed_row`s, of every arm."""
        return f"weighed:{self._run}:{self.arm}:{self.champion}:{bad.name}"

    def layouts(self) -> Iterator[str]:
        """All that is counted for it."""
        yield self.calls_layout(Bad(ERRORS))  # how many calls the arm has had
        for bounds in self.bounds:
            yield self.calls_layout(bounds.bad)
            if bounds.times is not None:
                yield self.odds_layout(bounds)
        for bad in self.weighed():
            yield self.weighed_layout(bad)

    def weighed(self) -> Iterator[Bad]:
        """What is compared with the champion by means."""
        yield from {*self.compared, *(each.bad for each in self.bounds if each.margin is not None)}

    @property
    def _run(self) -> str:
        return f"{round(self.since * 1000):x}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known about one bound of an arm."""

    name: str  # of the guardrail, and of its bound
    arm: str
    action: Action
    guardrail: Guardrail
    numbers: Mapping[str, float]  # that it was judged by

    @property
    def broken(self) -> bool:
        """Whether the arm is known to be beyond it."""
        return self.guardrail.broken


def bounds_of(name: str, guardrail: AnyGuardrail, reward: Range) -> Bounds:
    """A guardrail as bounds on something bad from 0 to 1; `reward` is the route's range."""
    settings = Bounds(name, guardrail.action, guardrail.alpha, Bad(ERRORS))
    if isinstance(guardrail, Rate):
        settings = replace(settings, times=guardrail.times, floor=guardrail.floor)
    if isinstance(guardrail, ErrorGuardrail):
        return replace(settings, most=guardrail.most)
    if isinstance(guardrail, LatencyGuardrail):
        slow = Bad(f"slower:{guardrail.seconds!r}", seconds=guardrail.seconds)
        return replace(
            settings, bad=slow, most=None if guardrail.quantile is None else round(1.0 - guardrail.quantile, 12)
        )
    bad, bound = earned(reward), guardrail.least if isinstance(guardrail, RewardGuardrail) else guardrail.bound
    if isinstance(guardrail, MetricGuardrail):
        ends = guardrail.range.high, guardrail.range.low
        best, worst = ends if guardrail.worse == "lower" else ends[::-1]
        bad = Bad(f"metric:{guardrail.metric}:{best!r}:{worst!r}", guardrail.metric, best=best, worst=worst)
    margin = None if guardrail.margin is None else guardrail.margin / abs(bad.best - bad.worst)
    return replace(settings, bad=bad, most=None if bound is None else bad.part(bound), margin=margin)


def earned(reward: Range) -> Bad:
    """What a reward lacks of the best."""
    return Bad(f"{REWARD}:{reward.high!r}:{reward.low!r}", REWARD, best=reward.high, worst=reward.low)


def standing(
    guardrails: Mapping[str, AnyGuardrail],
    arms: Sequence[str],
    champion: str,
    reward: Range,
    since: Mapping[str, float],
) -> list[Watch]:
    """What is watched at any time, by the guardrails that do not belong to a canary.

    The alpha of each is shared by the arms and by its bounds. `since` says when an arm was brought back; for those that
    it does not name, everything counts.
    """
    settings = [bounds_of(name, each, reward) for name, each in guardrails.items() if each.action != "roll_back"]
    watches = []
    for arm in arms:
        asked = [each.absolute() if arm == champion else each for each in settings]
        bounds = tuple(replace(each, alpha=each.alpha / (len(arms) * each.count)) for each in asked if each.count)
        if bounds:
            watches.append(Watch(arm, champion, since.get(arm, 0.0), bounds))
    return watches


def judge(watch: Watch, sums: Sums, arms: Sequence[str]) -> list[Finding]:
    """What is known about each bound of a watched arm. `arms` are all of the route."""
    return [finding for bounds in watch.bounds for finding in _judged(watch, bounds, sums, arms)]


def compared(watch: Watch, bad: Bad, sums: Sums, arms: Sequence[str]) -> Vector:
    """The row, shape [7], that says how much more of something bad the arm has than the champion."""
    layout = watch.weighed_layout(bad)
    nothing = np.zeros(WEIGHED)
    n = sum(float(sums.get((layout, arm), nothing)[0]) for arm in arms)
    return difference_row(sums.get((layout, watch.arm), nothing), sums.get((layout, watch.champion), nothing), n)


def _judged(watch: Watch, bounds: Bounds, sums: Sums, arms: Sequence[str]) -> Iterator[Finding]:
    name, alpha = bounds.name, bounds.alpha
    n, bad = (float(x) for x in sums.get((watch.calls_layout(bounds.bad), watch.arm), np.zeros(2)))

    def finding(bound: str, known: Guardrail, **numbers: float) -> Finding:
        ends = {"low": known.low, "high": known.high, "limit": known.limit, "alpha": alpha}
        return Finding(f"{name}.{bound}", watch.arm, bounds.action, known, {**numbers, **ends})

    if bounds.most is not None:
        yield finding("most", rate_guardrail(name, bad, n, bounds.most, alpha=alpha), n=n, bad=bad)
    if bounds.times is not None:
        layout = watch.odds_layout(bounds)
        ours, theirs = (sums.get((layout, arm), np.zeros(3)) for arm in (watch.arm, watch.champion))
        either = alpha / 2 if bounds.floor else alpha
        known = odds_guardrail(f"{watch.arm}'s part of {name}", ours, theirs, alpha=either)
        if bounds.floor and not known.kept:
            floor = rate_guardrail(name, bad, n, bounds.floor, alpha=either)
            if floor.kept or (known.broken and not floor.broken):
                known = floor
        yield finding("times", known, n=n, bad=float(ours[0]), bad_of_champion=float(theirs[0]))
    if bounds.margin is not None:
        row = compared(watch, bounds.bad, sums, arms)
        known = difference_guardrail(f"{name}, more than {watch.champion}", row, bounds.margin, alpha=alpha)
        yield finding("margin", known, n=float(row[0]), plays=float(row[5]), plays_of_champion=float(row[6]))
