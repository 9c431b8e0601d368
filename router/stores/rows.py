"""The words of a store as rows of plain values: what SQLite has in columns, and Redis in one value.

Many numbers travel together, as float64, little-endian, exact to the bit. One number stays one, so that it can be asked
for in SQL.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
import numpy as np

from router.call import Decision, Event, Fit, Outcome, Vector
from router.stores import Malformed

Row: TypeAlias = Sequence[Any]

FLOAT64 = np.dtype("<f8")

_INT64 = 1 << 63
_NUMBER, _BLOB = (float, int), (bytes, type(None))
_TYPES: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "route": str,
    "arm": str,
    "propensity": _NUMBER,
    "time": _NUMBER,
    "policy_version": str,
    "unit": str,
    "context": _BLOB,
    "probabilities": _BLOB,
    "allowed": (int, str),
    "rule": str,
    "failed": str,
    "proposed": _BLOB,
    "prediction": (*_NUMBER, str, type(None)),
    "upstream": str,
}
_names = msgspec.json.Decoder(tuple[str, ...])
_numbers = msgspec.json.Decoder(dict[str, float | str])


def decision_row(decision: Decision) -> tuple[Any, ...]:
    """id, route, arm, propensity, time, policy_version, unit, and all the rest that is optional."""
    allowed, said = decision.allowed, decision.prediction
    return (
        decision.id,
        decision.route,
        decision.arm,
        decision.propensity,
        decision.time,
        decision.policy_version,
        decision.unit,
        _packed(decision.context),
        _packed(decision.probabilities),
        allowed if -_INT64 <= allowed < _INT64 else str(allowed),  # of more arms than an integer has bits
        decision.rule,
        msgspec.json.encode(decision.failed).decode() if decision.failed else "[]",
        _packed(decision.proposed),
        "nan" if said is not None and math.isnan(said) else said,  # models say it, and a column makes it NULL
        decision.upstream,
    )


def decision_of(row: Row) -> Decision:
    """What `decision_row` was made of. Raises Malformed for what it never makes."""
    try:
        if wrong := _wrong(tuple(map(type, row))):
            raise ValueError(wrong)
        id, route, arm, propensity, time, version, unit, context, probabilities, allowed, rule, failed, *rest = row
        proposed, said, upstream = rest
        return Decision(
            id,
            route,
            arm,
            propensity,
            time,
            version,
            unit,
            _unpacked("context", context),
            _unpacked("probabilities", probabilities),
            allowed if type(allowed) is int else _mask(allowed),
            rule,
            () if failed == "[]" else _arms(failed),
            _unpacked("proposed", proposed),
            _nan(said) if type(said) is str else said,
            upstream,
        )
    except ValueError as error:
        raise Malformed(f"decision {row[0] if row else ''!r}", error) from None


def outcome_row(outcome: Outcome) -> tuple[Any, ...]:
    """Its fields."""
    return (outcome.decision, outcome.name, outcome.value, outcome.time)


def outcome_of(row: Row) -> Outcome:
    """What `outcome_row` was made of. Raises Malformed for what it never makes."""
    id, name, value, time = row
    if not (isinstance(value, _NUMBER) and isinstance(time, _NUMBER)):
        raise Malformed(f"outcome {name!r} of decision {id!r}", "its value or its time is no number")
    return Outcome(id, name, value, time)


def event_row(event: Event) -> tuple[Any, ...]:
    """A bound may be infinite, which JSON lacks: such numbers are written as text, as protobuf's JSON does."""
    numbers = {name: float(value) if math.isfinite(value) else str(value) for name, value in event.numbers.items()}
    text = msgspec.json.encode(numbers).decode()
    return (event.id, event.time, event.route, event.arm, event.kind, event.why, text)


def event_of(row: Row) -> Event:
    """What `event_row` was made of. Raises Malformed for what it never makes."""
    id, time, route, arm, kind, why, text = row
    try:
        numbers = {name: float(value) for name, value in _numbers.decode(text).items()}
    except (TypeError, ValueError):
        raise Malformed(f"event {id!r}", "numbers: they are no JSON of numbers by name") from None
    return Event(id, time, route, arm, kind, why, numbers)


def fit_of(route: str, version: str, settings: str, arms: int, sums: bytes, time: float) -> Fit:
    """What is kept of a fit. Raises Malformed for sums that are not `arms` rows."""
    try:
        return Fit(route, version, settings, vector(sums).reshape(arms, -1), time)
    except (TypeError, ValueError):
        raise Malformed(f"version {version!r} of route {route!r}", f"sums: they are not {arms} rows") from None


def vector(blob: bytes) -> Vector:
    """Read-only, as it looks into the blob."""
    return np.frombuffer(blob, FLOAT64)


def blob(values: Vector) -> bytes:
    """What `vector` reads, row by row."""
    return values.astype(FLOAT64).tobytes()


def _packed(values: Sequence[float] | None) -> bytes | None:
    return None if values is None else struct.pack(f"<{len(values)}d", *values)


def _unpacked(name: str, packed: bytes | None) -> tuple[float, ...] | None:
    if packed is None:
        return None
    if len(packed) % 8:
        raise ValueError(f"{name}: it has {len(packed)} bytes, and numbers have 8 each")
    return struct.unpack(f"<{len(packed) // 8}d", packed)


def _mask(allowed: str) -> int:
    try:
        return int(allowed)
    except ValueError:
        raise ValueError("allowed: it is no integer") from None


def _nan(said: str) -> float:
    if said != "nan":
        raise ValueError("prediction: it is no number")
    return math.nan


def _arms(failed: str) -> tuple[str, ...]:
    try:
        return _names.decode(failed)
    except ValueError:
        raise ValueError("failed: it is no JSON of names") from None


@lru_cache
def _wrong(types: tuple[type, ...]) -> str:
    """What is wrong with the types of a decision's row; empty: nothing."""
    if len(types) != len(_TYPES):
        return f"it has {len(types)} columns instead of {len(_TYPES)}"
    for (name, right), given in zip(_TYPES.items(), types, strict=True):
        if not issubclass(given, right):
            return f"{name}: it cannot be of type {given.__name__}"
    return ""
