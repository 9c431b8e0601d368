"""Rules: which arms a request may go to, whatever a policy would like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from router.config.context import Features
from router.config.expressions import Expression, Kind, Variable, expression
from router.config.struct import Name, Struct
from router.errors import listed

UNIT, METADATA, HOUR, WEEKDAY, FEATURES = range(5)
"""Where the facts lie that an expression reads; from FEATURES on, the features of the context."""

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Rule(Struct, frozen=True):
    """Of the rules of a route the first whose condition holds decides which arms are allowed; none: all are.

    A condition reads the features of the context, `unit`, `metadata["name"]` ("" where there is none), `hour` (14.5 at
    half past two) and `weekday` ("mon" to "sun"), both in the time zone of the route.
    """

    name: Name  # as the log and `croupier explain` have it
    when: str  # a condition, such as: volatility > 0.30
    use: str = ""  # this arm
    only: tuple[Name, ...] = ()  # or these
    never: tuple[Name, ...] = ()  # or all but these

    def __post_init__(self) -> None:
        if (self.use != "") + bool(self.only) + bool(self.never) != 1:
            raise ValueError(f"rule {self.name!r} needs one of use, only and never")

    def permits(self, arms: Sequence[str]) -> list[bool]:
        """Which arms the rule allows. Raises ValueError when it names another, or leaves none."""
        named = (self.use,) if self.use else self.only or self.never
        for arm in named:
            if arm not in arms:
                raise ValueError(f"{arm!r} is none of the arms ({listed(arms)})")
        permitted = [(arm in named) is not bool(self.never) for arm in arms]
        if not any(permitted):
            raise ValueError("never: no arm is left")
        return permitted


class RuleTest(Struct, frozen=True):
    """A request that is made up, and what the rules have to say to it. Rules that fail a test are not served."""

    given: dict[str, Any]  # features by name, unit, metadata, and a time such as "2026-01-05T14:30" in the route's zone
    allowed: tuple[Name, ...]  # the arms that are, in any order
    rule: str | None = None  # the name of the one that decides; "": none does; left out: any

    def __post_init__(self) -> None:
        if not self.allowed:
            raise ValueError("allowed: at least one arm is needed")


def variables_of(context: Features) -> Mapping[str, Variable]:
    """What the conditions of a route with this context may read."""
    known = {
        "unit": Variable(UNIT, Kind.TEXT),
        "metadata": Variable(METADATA, Kind.TEXTS),
        "hour": Variable(HOUR, Kind.NUMBER),
        "weekday": Variable(WEEKDAY, Kind.TEXT, WEEKDAYS),
    }
    for slot, (name, feature) in enumerate(context.items(), start=FEATURES):
        levels = feature.all_levels
        known[name] = Variable(slot, Kind.TEXT if levels else Kind.NUMBER, levels)
    return known


def conditions_of(rules: Sequence[Rule], context: Features, arms: Sequence[str]) -> list[Expression]:
    """The conditions of the rules, in their order. Raises ValueError that names the rule and says what is wrong."""
    variables = variables_of(context)
    names: set[str] = set()
    conditions = []
    for rule in rules:
        if rule.name in names:
            raise ValueError(f"the name {rule.name!r} is given twice")
        names.add(rule.name)
        try:
            rule.permits(arms)
            conditions.append(expression(rule.when, variables))
        except ValueError as error:
            raise ValueError(f"rule {rule.name!r}: {error}") from None
    return conditions


def zone_of(timezone: str) -> tzinfo:
    """The time zone of a name such as "UTC" or "Europe/London". Raises ValueError."""
    if timezone == "UTC":  # known where no others are
        return UTC
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"there is no time zone {timezone!r}; right are UTC and names such as Europe/London, where the machine has "
            "a time zone database (or Python the package tzdata)"
        ) from None
