"""The rules of a route at work: from what is known about a request to the arms that it may go to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from bandits import Mask
from protos.errors import InvalidArgument
from router.config.context import Features
from router.config.rules import WEEKDAYS, Rule, RuleTest, conditions_of, zone_of
from router.context.encoder import Encoder
from router.context.features import Value
from router.errors import listed

Ruling: TypeAlias = tuple[Mask, str]
"""The arms that are allowed, and the name of the rule that says so; empty where none does. The mask is read-only."""

_DAY, _HOUR = 86400, 3600
_SLOT = 900  # seconds: offsets from UTC change at quarters of an hour
_THURSDAY = 3  # 1970-01-01
_TIMELESS = (0.0, WEEKDAYS[0])


class Rules:
    """The rules of one route, compiled. Immutable but for a memo of the clock, and safe to share."""

    def __init__(self, rules: Sequence[Rule], context: Features, arms: Sequence[str], timezone: str = "UTC") -> None:
        """Raises ValueError that names the rule and says what is wrong."""
        conditions = conditions_of(rules, context, arms)
        self._rules = [
            (condition.holds, (_mask(rule.permits(arms)), rule.name))
            for rule, condition in zip(rules, conditions, strict=True)
        ]
        self._otherwise: Ruling = _mask([True] * len(arms)), ""
        self.reads_time = any(condition.reads & {"hour", "weekday"} for condition in conditions)
        self._wall_clock = wall_clock(zone_of(timezone))

    def __call__(self, values: Sequence[Value], unit: str, metadata: Mapping[str, str], now: float) -> Ruling:
        """What the first rule says that holds, given the values of a Context; `now` is in seconds since the epoch."""
        hour, weekday = self._wall_clock(now) if self.reads_time else _TIMELESS
        facts = (unit, metadata, hour, weekday, *values)
        for holds, ruling in self._rules:
            if holds(facts):
                return ruling
        return self._otherwise


def check_rules(
    rules: Sequence[Rule], tests: Sequence[RuleTest], context: Features, arms: Sequence[str], timezone: str = "UTC"
) -> list[str]:
    """What the tests of the rules find, one sentence each. Raises ValueError for rules that cannot be read."""
    compiled = Rules(rules, context, arms, timezone)
    encoder = Encoder(context)
    failures = []
    for at, test in enumerate(tests):
        try:
            failure = _failure(test, compiled, encoder, arms, timezone)
        except InvalidArgument as error:
            failure = f"given: {error}"
        if failure:
            failures.append(f"rule_tests[{at}]: {failure}")
    return failures


def wall_clock(zone: tzinfo) -> Callable[[float], tuple[float, str]]:
    """From seconds since the epoch to the hour and the weekday of a time zone."""

    @lru_cache(16)
    def offset(slot: float) -> float:
        told = datetime.fromtimestamp(slot * _SLOT, zone).utcoffset()
        return told.total_seconds() if told is not None else 0.0

    def read(now: float) -> tuple[float, str]:
        day, second = divmod(now + offset(now // _SLOT), _DAY)
        return second / _HOUR, WEEKDAYS[(int(day) + _THURSDAY) % len(WEEKDAYS)]

    return read


def _mask(permitted: Sequence[bool]) -> Mask:
    mask = np.array(permitted, dtype=np.bool_)
    mask.setflags(write=False)
    return mask


def _failure(test: RuleTest, rules: Rules, encoder: Encoder, arms: Sequence[str], timezone: str) -> str:
    """Why a test fails; empty: it passes. Raises InvalidArgument for what cannot be given."""
    if unknown := [arm for arm in test.allowed if arm not in arms]:
        return f"allowed: {listed(unknown)}: none of the arms ({listed(arms)})"
    given = dict(test.given)
    unit, metadata = given.pop("unit", ""), given.pop("metadata", {})
    time = given.pop("time", None)
    if not isinstance(unit, str):
        raise InvalidArgument("unit must be a text")
    if not (isinstance(metadata, dict) and all(isinstance(each, str) for each in [*metadata, *metadata.values()])):
        raise InvalidArgument("metadata must be a mapping of texts")
    if time is None and rules.reads_time:
        raise InvalidArgument("the rules read the time; give one")
    now = 0.0 if time is None else _moment(time, timezone)
    headers = {key.lower(): value for key, value in metadata.items()}
    mask, name = rules(encoder.given(given).values, unit, headers, now)
    allowed = [arm for arm, is_allowed in zip(arms, mask, strict=True) if is_allowed]
    decided = f"rule {name!r} decides" if name else "no rule holds"
    if set(allowed) != set(test.allowed):
        return f"{decided}, and {listed(allowed)} are allowed; expected were {listed(test.allowed)}"
    if test.rule is not None and test.rule != name:
        return f"{decided}; expected was {test.rule!r}" if test.rule else f"{decided}; expected was that none holds"
    return ""


def _moment(time: Any, timezone: str) -> float:
    """Seconds since the epoch of a time that is meant in a time zone unless it names its own."""
    try:
        told = time if isinstance(time, datetime) else datetime.fromisoformat(time)
    except (TypeError, ValueError):
        raise InvalidArgument('time must be such as "2026-01-05T14:30"') from None
    return (told if told.tzinfo else told.replace(tzinfo=zone_of(timezone))).timestamp()
