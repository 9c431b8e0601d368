"""The words of a store as rows of plain values: what SQLite has in columns, and Redis in one value.

Many numbers travel together, as float64, little-endian, exact to the bit. One number stays one, so that it can be asked
for in SQL.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np

from router.call import Decision, Event, Outcome, Vector

Row: TypeAlias = Sequence[Any]

FLOAT64 = np.dtype("<f8")

_INT64 = 1 << 63
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
    """What `decision_row` was made of."""
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
        _unpacked(context),
        _unpacked(probabilities),
        int(allowed),
        rule,
        () if failed == "[]" else _names.decode(failed),
        _unpacked(proposed),
        math.nan if said == "nan" else said,
        upstream,
    )


def outcome_row(outcome: Outcome) -> tuple[Any, ...]:
    """Its fields."""
    return (outcome.decision, outcome.name, outcome.value, outcome.time)


def event_row(event: Event) -> tuple[Any, ...]:
    """A bound may be infinite, which JSON lacks: such numbers are written as text, as protobuf's JSON does."""
    numbers = {name: float(value) if math.isfinite(value) else str(value) for name, value in event.numbers.items()}
    text = msgspec.json.encode(numbers).decode()
    return (event.id, event.time, event.route, event.arm, event.kind, event.why, text)


def event_of(row: Row) -> Event:
    """What `event_row` was made of."""
    id, time, route, arm, kind, why, text = row
    numbers = {name: float(value) for name, value in _numbers.decode(text).items()}
    return Event(id, time, route, arm, kind, why, numbers)


def vector(blob: bytes) -> Vector:
    """Read-only, as it looks into the blob."""
    return np.frombuffer(blob, FLOAT64)


def blob(values: Vector) -> bytes:
    """What `vector` reads, row by row."""
    return values.astype(FLOAT64).tobytes()


def _packed(values: Sequence[float] | None) -> bytes | None:
    return None if values is None else struct.pack(f"<{len(values)}d", *values)


def _unpacked(packed: bytes | None) -> tuple[float, ...] | None:
    return None if packed is None else struct.unpack(f"<{len(packed) // 8}d", packed)
