"""Features: what a source says about a request, made a number or a word, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from protos.errors import InvalidArgument
from router.config.context import REFUSE, ZEROS, Feature

Value: TypeAlias = float | str | None
"""Of a feature: a number, a level, or None for a word that counts as no level."""

_SHOWN = 10

Finish: TypeAlias = Callable[[Any], Value]
"""From what a source says, as `plain` gives it, to a value. Raises InvalidArgument."""


def finish_of(name: str, feature: Feature) -> Finish:
    """What is done about missing, unknown and outlying values."""
    return _word(name, feature) if feature.levels else _number(name, feature)


def one_hot(feature: Feature) -> Mapping[Value, tuple[float, ...]]:
    """The columns of each level, and of None; of a number there are none."""
    levels = feature.all_levels
    return (
        {level: tuple(1.0 if each == level else 0.0 for each in levels) for level in (*levels, None)} if levels else {}
    )


def plain(value: object, name: str, feature: Feature) -> float | str | None:
    """What a source says, as the feature takes it: a number, a word, or None where it is missing.

    Raises InvalidArgument for what is neither and spells neither.
    """
    if value is None or value == "":
        return None
    return _as_word(value, name, feature) if feature.levels else _as_number(value, name, feature)


def refusal(name: str, feature: Feature, why: str) -> InvalidArgument:
    """A sentence about a feature that cannot be read. It never says what stood there."""
    if feature.tensor:
        source = f"column {feature.column} of input {feature.tensor!r}"
    elif feature.lookup:
        source = f"column {feature.column} of feature table {feature.lookup!r}"
    elif feature.parameter:
        source = f"parameter {feature.parameter!r}"
    else:
        source = f"metadata {feature.metadata!r}"
    return InvalidArgument(f"context: {name} ({source}) {why}")


def _number(name: str, feature: Feature) -> Callable[[float | None], float]:
    least, greatest = feature.least, feature.greatest
    missing = None if feature.missing == REFUSE else float(feature.missing)
    clips = feature.outside == "clip"
    lowest = float(feature.low) if clips and feature.low is not None else None
    highest = float(feature.high) if clips and feature.high is not None else None

    def finish(number: float | None) -> float:
        if number is None or math.isnan(number):
            if missing is not None:
                return missing
            raise refusal(name, feature, "is missing")
        if least <= number <= greatest:
            return number
        if math.isinf(number):
            raise refusal(name, feature, "is infinite")
        if lowest is not None and number < lowest:
            return lowest
        if highest is not None and number > highest:
            return highest
        raise refusal(name, feature, f"must lie between {least:g} and {greatest:g}")

    return finish


def _word(name: str, feature: Feature) -> Callable[[str | None], str | None]:
    levels = {level: level for level in feature.all_levels}

    def finish(word: str | None) -> str | None:
        level = levels.get(word) if word else None
        if level is not None:
            return level
        instead = feature.unknown if word else str(feature.missing)
        if instead == REFUSE:
            shown = ", ".join(list(levels)[:_SHOWN]) + (", ..." if len(levels) > _SHOWN else "")
            raise refusal(name, feature, f"must be one of {shown}" if word else "is missing")
        return None if instead == ZEROS else instead

    return finish


def _as_word(value: object, name: str, feature: Feature) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value)
    raise refusal(name, feature, "must be a text or a whole number")


def _as_number(value: object, name: str, feature: Feature) -> float:
    # Python would also read "1_000" and the digits of other scripts.
    if isinstance(value, (int, float)) or (isinstance(value, str) and value.isascii() and "_" not in value):
        try:
            return float(value)
        except OverflowError:
            return math.inf
        except ValueError:
            pass
    raise refusal(name, feature, "must be a number")
