"""Names as they stand in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def quoted(names: Iterable[object]) -> str:
    """As in "'x', 'y'"."""
    return ", ".join(map(repr, names)) or "nothing"


def described(named: Mapping[str, object]) -> str:
    """As in "'x' FP32 [2], 'y' INT64 [1]"."""
    return ", ".join(f"{name!r} {each}" for name, each in named.items())
