"""Names as they stand in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

SHOWN = 100  # characters of a client's word in a message
LISTED = 10  # names in a message


def shown(name: str) -> str:
    """A client's word as it may stand in a message."""
    return repr(name if len(name) <= SHOWN else name[:SHOWN] + "...")


def quoted(names: Iterable[object]) -> str:
    """As in "'x', 'y'"."""
    return ", ".join(map(repr, names)) or "nothing"


def described(named: Mapping[str, object]) -> str:
    """As in "'x' FP32 [2], 'y' INT64 [1]"."""
    return ", ".join(f"{name!r} {each}" for name, each in named.items())


def some(names: Sequence[str]) -> str:
    """As `quoted`, of many names the first few."""
    listed = quoted(names[:LISTED])
    return f"{listed} and {len(names) - LISTED} more" if len(names) > LISTED else listed
