"""How fast is the machine just now? What shares a processor with us can nearly halve its speed, unseen by its clock.

CPU time counts the time that a thread had a core, and not what the core was worth: where another machine's work runs on
the other half of it, the same instructions take up to twice as long. So a piece of work of known size is timed beside
what is measured, and rounds in which it took longer than it can are told apart.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

K = TypeVar("K")
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
class Rounds(Generic[T]):
    """What was measured of one target, round by round."""

    all: list[T]
    calm: list[T]  # those in which nothing slowed the machine
    counted: list[T]  # the calm ones where every target has enough of them, else all


def interleaved(
    measures: Mapping[K, Callable[[], T]],
    pace: Pace,
    *,
    enough: int,
    patience: float,
    heard: Callable[[Mapping[K, Rounds[T]]], None] = lambda _: None,
) -> dict[K, Rounds[T]]:
    """Measures each target once a round, until each has `enough` calm rounds, or for `patience` seconds.

    `heard` gets what there is after each round.
    """
    samples: dict[K, list[tuple[T, float]]] = {key: [] for key in measures}  # each with the slower of before and after
    end, before = time.monotonic() + patience, pace()
    while True:
        for key, measure in measures.items():
            value = measure()
            after = pace()
            samples[key].append((value, max(before, after)))
            before = after
        rounds = _rounds(samples, pace, enough)
        heard(rounds)
        if time.monotonic() > end or all(len(each.calm) >= enough for each in rounds.values()):
            return rounds


def _rounds(samples: Mapping[K, Sequence[tuple[T, float]]], pace: Pace, enough: int) -> dict[K, Rounds[T]]:
    every = {key: [value for value, _ in of] for key, of in samples.items()}
    calm = {key: [value for value, seconds in of if pace.slowed(seconds) <= CALM] for key, of in samples.items()}
    counted = calm if all(len(of) >= enough for of in calm.values()) else every
    return {key: Rounds(every[key], calm[key], counted[key]) for key in samples}


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
