"""How fast is the machine just now? What shares a processor with us can nearly halve its speed, unseen by its clock.

CPU time counts the time that a thread had a core, and not what the core was worth: where another machine's work runs on
the other half of it, the same instructions take up to twice as long. So a piece of work of known size is timed beside
what is measured, and rounds in which it took longer than it can are told apart.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

STEPS = 50_000
CALM = 1.2
"""Times the least that the work has ever taken: what takes longer was slowed."""


class Pace:
    """Times the work on every core that this process may use."""

    def __init__(self, work: Callable[[], float] | None = None) -> None:
        """`work` returns the CPU seconds that it took; None: on the slowest core, what an interpreter does all day."""
        self._work = work or _on_slowest_core
        self._least = math.inf

    def __call__(self) -> float:
        """CPU seconds that the work takes now."""
        seconds = self._work()
        self._least = min(self._least, seconds)
        return seconds

    def slowed(self, seconds: float) -> float:
        """How many times as long that was as the least so far."""
        return seconds / self._least


@dataclass(frozen=True)
class Sample(Generic[T]):
    """What was measured, and the pace of the machine: the slower of before and after, in seconds of the known work."""

    value: T
    pace: float


def calm(samples: Iterable[Sample[T]], pace: Pace) -> list[T]:
    """What was measured while nothing slowed the machine, as far as `pace` knows it by now."""
    return [sample.value for sample in samples if pace.slowed(sample.pace) <= CALM]


def _on_slowest_core() -> float:
    cores = os.sched_getaffinity(0)
    try:
        return max(_seconds_on(core) for core in cores)
    finally:
        os.sched_setaffinity(0, cores)


def _seconds_on(core: int) -> float:
    os.sched_setaffinity(0, {core})
    began = time.thread_time()
    made: dict[int, Any] = {}
    for step in range(STEPS):
        made[step & 4095] = (step, str(step))
    return time.thread_time() - began
