"""How RedisStore's keys and values are written, and what its scripts are sent.

Every key has the prefix in braces, Redis's hash tag: in a cluster all of them are on one node, where a script may touch
them together.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b

import msgspec

from router.call import Add, Batch, Decision, Document, Event, Fit, Outcome
from router.stores import DECISIONS, Malformed
from router.stores.ledger import Key
from router.stores.rows import Row, blob, decision_of, decision_row, event_of, event_row

# A NumPy number is a float as well.
pack = msgspec.msgpack.Encoder(enc_hook=float).encode
unpack = msgspec.msgpack.Decoder().decode


def key(prefix: str, *name: str) -> bytes:
    """The key of something, such as the sums of a route."""
    return ":".join([f"{{{prefix}}}", *name]).encode()


class Keys:
    """The keys that one call of a script may touch. It names each by its place, from 1 on, as Lua counts."""

    def __init__(self, prefix: str, *fixed: str) -> None:
        """`fixed` are the first, in this order."""
        self._prefix = prefix
        self._places: dict[bytes, int] = {}
        for name in fixed:
            self.place(name)

    def place(self, *name: str) -> int:
        """Where a key is; put last when it is new."""
        return self._places.setdefault(key(self._prefix, *name), len(self._places) + 1)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._places)


class Commit:
    """A batch for commit.lua: its keys, the MessagePack, and the values that the script only passes on."""

    def __init__(self, batch: Batch, keys: Keys) -> None:
        self._keys = keys
        self._sums: dict[tuple[int, str], Key] = {}  # those that are added to
        self._kinds: dict[tuple[str, str, str], int] = {}  # what many decisions share
        self._values: list[bytes] = []
        told = {
            "decisions": [self._decision(decision) for decision in batch.decisions],
            "kinds": [self._kind(*kind) for kind in self._kinds],
            "adds": self._adds(batch.adds),
            "credits": [
                (
                    *(one.decision, one.name, one.value, one.time, self._adds(credit.adds), credit.replaces),
                    *(credit.given or (None, None)),
                )
                for credit in batch.credits
                for one in (credit.outcome,)
            ],
            "fits": [self._fit(fit) for fit in batch.fits],
            "number": batch.number,
        }
        if batch.writer:
            told["writer"] = keys.place("writer", batch.writer)
        self.batch = pack(told)
        self.values = b"".join(self._values)

    def sum(self, place: int, field: bytes) -> Key:
        """Which sum an answer of the script names."""
        return self._sums[place, field.decode()]

    def _decision(self, decision: Decision) -> tuple[str, int, int]:
        kind = decision.route, decision.arm, decision.policy_version
        return decision.id, self._value(decision_row(decision)), self._kinds.setdefault(kind, len(self._kinds) + 1)

    def _kind(self, route: str, arm: str, version: str) -> tuple[int, int, str, int, str]:
        return (
            self._keys.place("log", route),
            *self._sum(route, DECISIONS, arm),
            self._keys.place("uses", route),
            version,
        )

    def _fit(self, fit: Fit) -> tuple[int, str, str, int, str, str]:
        digest = blake2b(fit.settings.encode(), digest_size=16).hexdigest()
        size = self._value((digest, len(fit.sums), blob(fit.sums), fit.time))
        return self._keys.place("fits", fit.route), fit.route, fit.version, size, digest, fit.settings

    def _adds(self, adds: Iterable[Add]) -> list[tuple[int, str, list[float]]]:
        return [(*self._sum(add.route, add.layout, add.arm), add.row.tolist()) for add in adds]

    def _sum(self, route: str, layout: str, arm: str) -> tuple[int, str]:
        name = self._keys.place("sums", route), msgspec.json.encode((layout, arm)).decode()
        self._sums[name] = route, layout, arm
        return name

    def _value(self, row: object) -> int:
        self._values.append(pack(row))
        return len(self._values[-1])


def put_request(
    bodies: Mapping[str, bytes], expected: int | None, events: Sequence[Event], keys: Keys
) -> tuple[bytes, bytes]:
    """What put.lua is sent after the number of the call."""
    rows = [pack(event_row(event)) for event in events]
    told = {
        "documents": [(name, len(body)) for name, body in bodies.items()],
        "expected": expected,
        "events": [
            (keys.place("events", event.route), keys.place("event-order", event.route), event.id, len(row))
            for event, row in zip(events, rows, strict=True)
        ],
    }
    return pack(told), b"".join([*bodies.values(), *rows])


def forget_request(decisions: Iterable[Decision], keep: Collection[str]) -> tuple[bytes, bytes]:
    """What forget.lua is sent after the route."""
    return pack([(decision.id, decision.policy_version) for decision in decisions]), pack(list(keep))


def read_decision(id: str, value: bytes) -> Decision:
    """What is kept of a decision."""
    row = _row(f"decision {id!r}", value)
    if row[:1] != [id]:
        raise Malformed(f"decision {id!r}", "what is kept there is another one")
    return decision_of(row)


def read_outcomes(decision: str, value: bytes) -> dict[str, Outcome]:
    """What is known of a decision, by name: end to end the length of a name, the name, its value and its time."""
    outcomes = {}
    at = 0
    try:
        while at < len(value):
            (length,) = struct.unpack_from("<I", value, at)
            name = value[at + 4 : at + 4 + length].decode()
            outcomes[name] = Outcome(decision, name, *struct.unpack_from("<dd", value, at + 4 + length))
            at += 20 + length
    except (struct.error, UnicodeDecodeError):
        raise Malformed(f"what became of decision {decision!r}", f"it cannot be read from byte {at} on") from None
    return outcomes


def read_sum(field: bytes) -> tuple[str, str]:
    """The layout and the arm of a sum."""
    return msgspec.json.decode(field, type=tuple[str, str])


def read_fit(route: str, version: str, value: bytes) -> Row:
    """What is kept of a fit: under which name its settings are, how many arms there were, the sums and the time."""
    return _row(f"version {version!r} of route {route!r}", value)


def read_event(id: str, value: bytes) -> Event:
    """What is kept of an event."""
    return event_of(_row(f"event {id!r}", value))


def read_document(value: bytes) -> Document:
    """A stamp, and the body behind it."""
    (stamp,) = struct.unpack_from("<d", value)
    return Document(int(stamp), value[8:])


def _row(what: str, value: bytes) -> Row:
    try:
        row = unpack(value)
    except ValueError:
        row = None
    if not isinstance(row, list):
        raise Malformed(what, "it is no MessagePack of a row")
    return row
