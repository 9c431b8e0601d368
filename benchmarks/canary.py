"""Is a bad canary rolled back, a good one promoted, an equal one left alone? With somebody who looks all the time.

Four canaries, many seeded runs of each, by the code that a router runs: a bad one, which fails ten times as often as
its champion; a good one, which earns more; one that is equal; and one that fails as often as the guardrail just allows,
the hardest to leave alone. Error rates and rewards rise and fall with the hour
for both arms alike, and the canary's share rises from step to step, so that adding up each arm's calls would compare
different hours. The promise: over all looks and guardrails, a run ends wrong with probability alpha at most. Beside it,
a rule as people write one: rolled back once the canary is seen to fail twice as often as the champion.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bandits.anytime import rate_interval
from router.call import Vector
from router.config.reward import Range
from router.config.safety import Canary, ErrorGuardrail, Step
from router.safety import canary
from router.safety.comparisons import odds_row
from router.safety.guardrails import ERRORS, Bad, Watch, earned

ALPHA = 0.05
CALLS = 60_000
LOOK = 100  # calls between two looks
DAY = 9_000.0  # calls
ARMS = ("champion", "canary")
REWARD = Range()
GUARDRAILS = {"errors": ErrorGuardrail(action="roll_back", most=0.03, times=3.0)}
SETTINGS = Canary(
    arm="canary",
    champion="champion",
    steps=[Step(share=0.05, calls=250), Step(share=0.25, calls=2_000), Step(share=0.5, calls=4_000, rewards=4_000)],
    alpha=ALPHA,
)
WANTED = 0.95
"""The least share of runs that have to end as they should: bad ones and good ones are plainly so."""

TWICE = "rolled back at twice the errors seen"


@dataclass(frozen=True)
class World:
    """What the canary is in truth, beside a champion that fails at `errors` and earns `reward`, at noon."""

    errors: float
    reward: float
    right: str  # the outcome that it should come to


CHAMPION = World(errors=0.005, reward=0.60, right="")
WORLDS = {
    "bad": World(errors=0.05, reward=0.60, right="rolled_back"),
    "good": World(errors=0.005, reward=0.66, right="promoted"),
    "equal": World(errors=0.005, reward=0.60, right="left_alone"),
    "allowed": World(errors=0.015, reward=0.60, right="left_alone"),
}


@dataclass(frozen=True)
class Run:
    """How one canary fared."""

    outcome: str
    step: int  # at which it ended, from 0
    calls: int  # of both arms until then
    of_canary: int
    twice: int  # the call after which the rule of thumb rolled it back; 0: never


def run(world: World, seed: int) -> Run:
    """One canary, looked at every `LOOK` calls, until it has ended or `CALLS` are over."""
    rng = np.random.default_rng(seed)
    state = canary.begin(0.0)
    watch = canary.watch(SETTINGS, GUARDRAILS, "champion", REWARD, state.since)
    sums: dict[tuple[str, str], Vector] = {}
    seen, twice, calls = np.zeros((2, 2)), 0, 0  # n and errors of each arm
    while calls < CALLS and not state.ended:
        calls += LOOK
        share = canary.share(SETTINGS, state)
        seen += add_up(calls_at(rng, world, calls, share), share, watch, sums)
        if not twice and seen[1, 0] >= 100 and seen[1, 1] / seen[1, 0] > 2.0 * max(seen[0, 1], 1.0) / seen[0, 0]:
            twice = calls
        state, _ = canary.advance(
            SETTINGS, watch, state, sums, route="credit", arms=ARMS, reward=REWARD, now=float(calls)
        )
    return Run(state.outcome, state.step, calls, int(seen[1, 0]), twice)


@dataclass(frozen=True)
class Calls:
    """What `LOOK` calls came to, one number each."""

    arms: NDArray[np.int64]
    failed: NDArray[np.bool_]
    rewards: Vector  # of those that did not fail


def calls_at(rng: np.random.Generator, world: World, now: int, share: float) -> Calls:
    """Calls at one hour, of which the canary gets a share."""
    hour = math.sin(2.0 * math.pi * now / DAY)
    truth = (CHAMPION, world)
    fails = np.array([each.errors for each in truth]) * (1.0 + 0.8 * hour)
    earns = np.array([each.reward for each in truth]) + 0.15 * hour
    arms = (rng.random(LOOK) < share).astype(np.int64)
    failed = rng.random(LOOK) < fails[arms]
    return Calls(arms, failed, np.clip(earns[arms] + rng.normal(0.0, 0.2, LOOK), 0.0, 1.0))


def add_up(calls: Calls, share: float, watch: Watch, sums: dict[tuple[str, str], Vector]) -> Vector:
    """Adds what the router would count, a hundred calls at a time; returns n and errors of each arm."""
    p = (1.0 - share, share)
    counts = np.zeros((2, 2))
    for k, arm in enumerate(ARMS):
        mine = calls.arms == k
        counts[k] = mine.sum(), (mine & calls.failed).sum()
        if arm == watch.arm:
            _add(sums, watch.calls_layout(Bad(ERRORS)), arm, counts[k])
        for bounds in watch.bounds:
            if bounds.times is not None:
                _add(sums, watch.odds_layout(bounds), arm, counts[k, 1] * odds_row(bounds.times, p[1], p[0]))
        x, w = 1.0 - calls.rewards[mine & ~calls.failed], 1.0 / p[k]
        row = np.array([len(x), x.sum(), (x * x).sum()])
        _add(sums, watch.weighed_layout(earned(REWARD)), arm, np.concatenate([row, w * row[:2], w * w * row]))
    return counts


def _add(sums: dict[tuple[str, str], Vector], layout: str, arm: str, row: Vector) -> None:
    sums[layout, arm] = sums[layout, arm] + row if (layout, arm) in sums else row


@dataclass(frozen=True)
class Row:
    """All runs of one kind of canary."""

    runs: int
    right: float
    wrong: float  # ended, and not as it should have
    wrong_by_step: list[float]  # so far, at each step
    wrong_at_least: float  # the least that the true rate of wrong ends can be, with 95 % confidence
    wrong_at_most: float
    calls: float  # in the middle, of the runs that ended as they should
    of_canary: float
    twice: float  # share of runs that the rule of thumb rolled back

    @property
    def holds(self) -> bool:
        """Whether the promise may be true, and the canary is told from the others."""
        return self.wrong_at_least <= ALPHA and self.right >= WANTED


def summary(world: World, runs: list[Run]) -> Row:
    """Counts the ends."""
    wrong = [each for each in runs if each.outcome in {"promoted", "rolled_back"} and each.outcome != world.right]
    right = [each for each in runs if each.outcome == world.right]
    low, high = rate_interval(len(wrong), len(runs), tightest_at=len(runs))
    return Row(
        runs=len(runs),
        right=len(right) / len(runs),
        wrong=len(wrong) / len(runs),
        wrong_by_step=[sum(each.step <= step for each in wrong) / len(runs) for step in range(len(SETTINGS.steps))],
        wrong_at_least=low,
        wrong_at_most=high,
        calls=float(np.median([each.calls for each in right])) if right else math.nan,
        of_canary=float(np.median([each.of_canary for each in right])) if right else math.nan,
        twice=sum(each.twice > 0 for each in runs) / len(runs),
    )


def measure(runs: int, seed: int = 20260301) -> dict[str, Row]:
    """The rows of all canaries, worked out by two processes."""
    with ProcessPoolExecutor(2) as pool:
        return {
            name: summary(world, list(pool.map(partial(run, world), range(seed, seed + runs), chunksize=10)))
            for name, world in WORLDS.items()
        }


def table(figures: dict[str, Row]) -> None:
    """Prints the figures."""
    steps = "".join(f"{f'step {k + 1}':>8}" for k in range(len(SETTINGS.steps)))
    print(f"{'canary':<10}{'should be':<13}{'is':>7}{'wrong':>8}{'interval':>17}{steps}", end="")
    print(f"   {'calls':>7}{'its own':>9}{'thumb':>9}")
    for name, row in figures.items():
        interval = f"{row.wrong_at_least:.1%} to {row.wrong_at_most:.1%}"
        by_step = "".join(f"{share:>8.1%}" for share in row.wrong_by_step)
        print(
            f"{name:<10}{WORLDS[name].right:<13}{row.right:>7.1%}{row.wrong:>8.1%}{interval:>17}{by_step}"
            f"   {row.calls:>7,.0f}{row.of_canary:>9,.0f}{row.twice:>9.1%}  {'holds' if row.holds else 'BROKEN'}"
        )


def main() -> int:
    """Prints the table; returns 1 when the promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canary", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the runs")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    arguments = parser.parse_args()
    runs = 40 if arguments.quick else 200
    figures = measure(runs)
    if arguments.json:
        print(json.dumps({name: asdict(row) for name, row in figures.items()}))
    else:
        table(figures)
        print(
            f"\n{runs} runs each of up to {CALLS:,} calls, a look after every {LOOK}; promised: wrong in {ALPHA:.0%} at"
            f" most.\nwrong: so far by the end of each step; calls: the median until the right end; thumb: {TWICE}"
        )
    return not all(row.holds for row in figures.values())


if __name__ == "__main__":
    sys.exit(main())
