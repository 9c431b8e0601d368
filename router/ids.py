"""Decision ids: 32 hex digits that sort by time and are unique without asking anybody."""

from __future__ import annotations

from collections.abc import Callable

ID_LENGTH = 32

_COUNTER_BITS = 32


class DecisionIds:
    """Gives ids: 12 digits of milliseconds since the epoch, 12 of this process's entropy, 8 of a counter."""

    def __init__(self, clock: Callable[[], float], entropy: bytes) -> None:
        """`clock` gives seconds since the epoch; `entropy` is six random bytes, drawn once a process."""
        if len(entropy) != 6:  # noqa: PLR2004  # the layout above
            raise ValueError(f"entropy: expected 6 bytes, got {len(entropy)}")
        self._clock = clock
        self._process = entropy.hex()
        self._count = 0
        self._millisecond = -1
        self._prefix = ""

    def __call__(self) -> tuple[str, float]:
        """A new id, and the time it carries in seconds since the epoch."""
        now = self._clock()
        millisecond = int(now * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._prefix = f"{millisecond:012x}{self._process}"
        self._count = (self._count + 1) % (1 << _COUNTER_BITS)
        return f"{self._prefix}{self._count:08x}", now


def time_of(decision: str) -> float | None:
    """When an id was given, in seconds since the epoch; None when it is not one of ours."""
    if len(decision) != ID_LENGTH:
        return None
    try:
        return int(decision, 16) and int(decision[:12], 16) / 1000
    except ValueError:
        return None


def first_id(time: float) -> str:
    """How the ids begin that are given at a time, in seconds since the epoch: later ones are greater than that."""
    return f"{max(0, int(time * 1000)):012x}"
