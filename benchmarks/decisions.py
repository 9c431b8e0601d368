"""What does a decision cost? Microseconds from Python, sampler included, ours beside other libraries, on one thread.

Every policy has learnt one reward of each arm. Contexts are made beforehand, the peers' in their own form, so the
making of text, rows and dicts is not counted against them. The rounds are interleaved, so that a noisy machine is
noisy for all, and the least of the rounds is shown.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from bandits import KLUCBPlus, LinearThompson, LinUCB, Policy, Split, SquareCB, Thompson, Vector, sampler
from benchmarks.peers import LIBRARIES, module, peer

Event = TypeVar("Event")

OURS = "Croupier"
ARMS = (2, 5, 10, 100)
FEATURES = (5, 20, 100)
EVENTS = 256
"""Different contexts and keys, met in turn."""

BATCH = 2e-3
"""Seconds of one measurement, about; then the next one has its turn."""


class Point(NamedTuple):
    """Who decides, between how many arms, for how many features."""

    kind: str
    arms: int
    features: int


CONTEXT_FREE: dict[str, Callable[[int], Policy]] = {
    "Split": lambda arms: Split((1.0,) * arms),
    "Thompson": lambda _: Thompson(),
    "KLUCBPlus": lambda _: KLUCBPlus(),
}
"""By kind, a policy for a number of arms."""

LINEAR: dict[str, Callable[..., Policy]] = {
    "SquareCB": SquareCB,
    "LinUCB": LinUCB,
    "LinearThompson": LinearThompson,
}
"""By kind, a policy for a number of `features`."""

PROMISED = {
    **{Point(kind, 2, 0): 0.5 for kind in CONTEXT_FREE},
    **{Point(kind, 5, 20): 2.0 for kind in LINEAR},
    **{Point(kind, 10, 50): 10.0 for kind in LINEAR},
}
"""Microseconds a decision."""

PROMISED_FIT = {Point(kind, 5, 20): 25.0 for kind in LINEAR}
"""Microseconds an arm."""


def grid(arms: Sequence[int], features: Sequence[int]) -> list[Point]:
    """Every policy at every size; the linear ones also at the sizes that something is promised for."""
    shapes = {(k, d) for k in arms for d in features} | {(k, d) for _, k, d in PROMISED if d}
    free = [Point(kind, k, 0) for kind in CONTEXT_FREE for k in arms]
    return free + [Point(kind, k, d) for kind in LINEAR for k, d in sorted(shapes)]


class Clock(Generic[Event]):
    """The least microseconds that something has taken, in batches of many."""

    def __init__(self, run: Callable[[Sequence[Event]], None], events: Sequence[Event], *, units: int = 1) -> None:
        """`run` does it for each event; each time is so many units, such as the arms of a fit."""
        self.least = math.inf
        self._run = run
        self._units = units
        self._batch = events[:1]
        run(self._batch)
        while (took := self._seconds()) < BATCH / 2:
            self._batch = list(islice(cycle(events), len(self._batch) * (8 if took < BATCH / 16 else 2)))

    def tick(self) -> None:
        """Run one batch."""
        self.least = min(self.least, self._seconds() / (len(self._batch) * self._units) * 1e6)

    def _seconds(self) -> float:
        start = time.perf_counter()
        self._run(self._batch)
        return time.perf_counter() - start


@dataclass(frozen=True)
class Clocks:
    """Those of one point, by library."""

    decide: dict[str, Clock[Any]]
    learn: dict[str, Clock[Any]]
    fit: Clock[Vector] | None


def ours(point: Point) -> Clocks:
    """Those of Croupier: a decision is fitted policy and sampler, learning an addition to the sums."""
    kind, arms, features = point
    policy = LINEAR[kind](features=features) if features else CONTEXT_FREE[kind](arms)
    random = np.random.default_rng(0)
    contexts = list(random.normal(size=(EVENTS, features))) if features else [None] * EVENTS
    sums = np.array([policy.delta(float(arm % 2), contexts[arm], 1.0) for arm in range(arms)])
    allowed = np.ones(arms, dtype=bool)
    fitted = policy.fit(sums)
    draw = sampler("decisions", [f"arm {k}" for k in range(arms)])
    events = [(context, f"customer-{i:08d}") for i, context in enumerate(contexts)]

    def decide(batch: Sequence[tuple[Vector | None, str]]) -> None:
        for context, key in batch:
            draw(fitted(context, allowed), key)

    def learn(batch: Sequence[Vector | None]) -> None:
        for context in batch:
            sums[0] += policy.delta(1.0, context, 0.5)

    def fit(batch: Sequence[Vector]) -> None:
        for rows in batch:
            policy.fit(rows)

    return Clocks({OURS: Clock(decide, events)}, {OURS: Clock(learn, contexts)}, Clock(fit, [sums], units=arms))


def theirs(point: Point, library: str) -> Clocks:
    """Those of another library; none where it has nothing alike."""
    kind, arms, features = point
    if kind not in module(library).LIKE:
        return Clocks({}, {}, None)
    learner = peer(library, module(library).LIKE[kind], arms, 0)
    random = np.random.default_rng(0)
    contexts = [learner.prepared(random.normal(size=features) if features else None) for _ in range(EVENTS)]
    for arm in range(arms):
        learner.learn(contexts[arm], arm, float(arm % 2), 1.0 / arms)

    def decide(batch: Sequence[Any]) -> None:
        for context in batch:
            learner.choose(context)

    def learn(batch: Sequence[Any]) -> None:
        for context in batch:
            learner.learn(context, 0, 1.0, 0.5)

    return Clocks({library: Clock(decide, contexts)}, {library: Clock(learn, contexts)}, None)


class Figures(NamedTuple):
    """Least microseconds at one point, by library."""

    decide: dict[str, float]
    learn: dict[str, float]
    fit: float


def measure(points: Sequence[Point], libraries: Sequence[str], rounds: int) -> dict[Point, Figures]:
    """Everything at every point, over interleaved rounds."""
    everything: dict[Point, list[Clocks]] = {}
    for point in points:
        print(f"making {point.kind} with {point.arms} arms, {point.features} features ...", file=sys.stderr, flush=True)
        everything[point] = [ours(point), *(theirs(point, library) for library in libraries)]
    ticking = [
        clock
        for every in everything.values()
        for clocks in every
        for clock in (*clocks.decide.values(), *clocks.learn.values(), clocks.fit)
        if clock
    ]
    gc.collect()
    gc.disable()
    for number in range(rounds):
        print(f"round {number + 1}/{rounds}", file=sys.stderr, flush=True)
        for clock in ticking:
            clock.tick()
    gc.enable()
    return {
        point: Figures(
            {library: clock.least for clocks in every for library, clock in clocks.decide.items()},
            {library: clock.least for clocks in every for library, clock in clocks.learn.items()},
            every[0].fit.least if every[0].fit else math.nan,
        )
        for point, every in everything.items()
    }


def broken(figures: dict[Point, Figures]) -> list[str]:
    """The promises that were not kept, each as a sentence."""
    sentences = [
        f"{point.kind}, {point.arms} arms, {point.features} features: a decision took {took:.2f} us, promised {bound}"
        for point, bound in PROMISED.items()
        if point in figures and (took := figures[point].decide[OURS]) > bound
    ]
    return sentences + [
        f"{point.kind}, {point.arms} arms, {point.features} features: a fit took {took:.1f} us an arm, promised {bound}"
        for point, bound in PROMISED_FIT.items()
        if point in figures and (took := figures[point].fit) > bound
    ]


def row(by_library: dict[str, float], libraries: Sequence[str]) -> str:
    """Ours in microseconds, and each other with how many times ours that is."""
    base = by_library[OURS]
    cells = [f"{base:>12.2f}"]
    for library in libraries:
        took = by_library.get(library)
        cells.append(f"{'':>20}" if took is None else f"{took:>11.1f} {took / base:>7.0f}x")
    return "".join(cells)


def report(figures: dict[Point, Figures], libraries: Sequence[str]) -> None:
    """Print decisions, then learning."""
    names = f"{OURS:>12}" + "".join(f"{library:>20}" for library in libraries)
    print(f"{'us a decision':<16}{'arms':>5}{'features':>10}{names}{'promised':>13}")
    for point, (decide, _, _) in figures.items():
        promised = f"<= {PROMISED[point]:g}" if point in PROMISED else ""
        print(f"{point.kind:<16}{point.arms:>5}{point.features or '':>10}{row(decide, libraries)}{promised:>13}")
    print(f"\n{'us a reward':<16}{'arms':>5}{'features':>10}{names}{'fit, us/arm':>14}{'promised':>11}")
    for point, (_, learn, fit) in figures.items():
        promised = f"<= {PROMISED_FIT[point]:g}" if point in PROMISED_FIT else ""
        cells = f"{row(learn, libraries)}{fit:>14.1f}"
        print(f"{point.kind:<16}{point.arms:>5}{point.features or '':>10}{cells}{promised:>11}")
    print("\nOurs adds a reward to the sums at once and fits behind the requests; the others learn in the same call.")
    for library in libraries:
        alike = ", ".join(f"{kind}: {setting}" for kind, setting in module(library).LIKE.items())
        print(f"{library} has beside {alike}")


def main() -> int:
    """Prints the tables; returns 1 when a promise was not kept."""
    from threadpoolctl import threadpool_limits

    parser = argparse.ArgumentParser(prog="python -m benchmarks.decisions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    arguments = parser.parse_args()
    points, rounds = (grid((2, 5), (20,)), 5) if arguments.quick else (grid(ARMS, FEATURES), 20)
    libraries = list(LIBRARIES)
    with threadpool_limits(1):
        figures = measure(points, libraries, rounds)
    if arguments.json:
        print(json.dumps([point._asdict() | found._asdict() for point, found in figures.items()]))
    else:
        report(figures, libraries)
    for sentence in broken(figures):
        print(sentence, file=sys.stderr)
    return bool(broken(figures))


if __name__ == "__main__":
    sys.exit(main())
