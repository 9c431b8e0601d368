"""Schedules: a split that changes at given times, at once or gradually."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from router.config import Route, SplitPolicy
from router.config.safety import Schedule

PARTS = 1000
"""Between two moments, shares move in so many parts: each change is a new version of the policy."""


def shares_at(schedule: Schedule, arms: Sequence[str], time: float) -> tuple[float, ...]:
    """The share of each arm at a time, in seconds since the epoch; together they are 1."""
    moments = schedule.moments
    times = [moment.at.timestamp() for moment in moments]
    index = max(0, bisect_right(times, time) - 1)
    now = _shares(schedule, index, arms)
    if schedule.between == "step" or index == len(moments) - 1 or time <= times[index]:
        return now
    part = int(PARTS * (time - times[index]) / (times[index + 1] - times[index])) / PARTS
    then = _shares(schedule, index + 1, arms)
    return tuple((1.0 - part) * before + part * after for before, after in zip(now, then, strict=True))


def scheduled(settings: Route, time: float) -> Route:
    """The settings that are in force at a time: the shares of then, and no schedule. Equal while the shares are."""
    if settings.schedule is None:
        return settings
    shares = shares_at(settings.schedule, list(settings.arms), time)
    split = SplitPolicy(weights=dict(zip(settings.arms, shares, strict=True)))
    return msgspec.structs.replace(settings, schedule=None, policy=split)


def _shares(schedule: Schedule, index: int, arms: Sequence[str]) -> tuple[float, ...]:
    shares = schedule.moments[index].shares
    total = sum(shares.values())
    return tuple(shares.get(arm, 0.0) / total for arm in arms)
