"""When a failing arm is left out."""

from __future__ import annotations

from router.config.struct import Struct, check_positive


class Guard(Struct, frozen=True):
    """When a failing arm is left out, and for how long."""

    failures: int = 3  # in a row
    seconds: float = 10.0  # doubled each time a probe fails
    longest_seconds: float = 300.0  # that an arm is left out at a time

    def __post_init__(self) -> None:
        check_positive(failures=self.failures, seconds=self.seconds)
        if not self.longest_seconds >= self.seconds:
            raise ValueError("longest_seconds: must not be below guard.seconds")
