"""Who is fooled by peeking? Two arms that are equal, and somebody who looks after every step.

Both arms succeed at the same rate, so whoever ever says that they differ is wrong. The textbook's test is wrong once in
twenty times if one looks once; the intervals of `bandits.anytime` are meant for all looks together. Three ways to deal:
in pairs, one trial of each arm at every step; one decision at every step, by a fair coin; and one decision by a policy
that learns, which plays more of the arm that has been lucky.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

from bandits.anytime.differences import FEWEST, FEWEST_PLAYS, asymptotic_radius, difference_sequence
from bandits.anytime.means import mean_sequence
from bandits.anytime.rates import rate_interval
from bandits.anytime.scores import aipw_terms
from bandits.kernels import VECTOR, kernel

Vector: TypeAlias = NDArray[np.float64]

ALPHA = 0.05
RATE = 0.1
STEPS = 5_000
FLOOR = 0.05  # under each arm's probability, where the policy learns
MARKS = (100, 200, 500, 1_000, 2_000, 5_000)
PICTURE = Path("build/peeking.png")

TEXTBOOK = "textbook z-test"
ASYMPTOTIC = "asymptotic, of the difference"
BERNSTEIN = "empirical Bernstein, of means"
RATES = "beta-binomial, of rates"


@dataclass(frozen=True)
class Watched:
    """What a run showed to whoever looked after every step, from the first that is allowed to."""

    alarm: int
    """The step after which he first said that the arms differ; 0: never."""

    radius: float
    """Half the width of his interval of the difference, after the last step."""


@dataclass(frozen=True)
class Row:
    """All runs of one way to deal, seen by one method."""

    alarms: float
    """The share of runs with a false alarm."""

    error: float
    """The standard error of that."""

    radius: float
    """The mean radius after the last step."""

    by_step: list[float]
    """The share of runs with a false alarm so far, after each of the steps."""

    @property
    def holds(self) -> bool:
        """Whether it is within alpha, but for three standard errors of chance."""
        return self.alarms <= ALPHA + 3.0 * self.error


def pairs(rng: np.random.Generator) -> dict[str, Watched]:
    """A trial of each arm at every step: the differences of pairs are what is observed."""
    rewards = (rng.random((STEPS, 2)) < RATE).astype(float)
    seen = rewards[:, 1] - rewards[:, 0]
    n = np.arange(1.0, STEPS + 1.0)
    mean = seen.cumsum() / n
    radius = asymptotic_radius(n, np.sqrt((seen * seen).cumsum() / n - mean * mean), alpha=ALPHA)
    low, high = mean_sequence((seen + 1.0) / 2.0, alpha=ALPHA)  # of a mean in [0, 1], so half as wide
    plays, successes = np.stack([n, n], axis=1), rewards.cumsum(axis=0)
    return {
        TEXTBOOK: textbook(plays, successes),
        ASYMPTOTIC: Watched(first((abs(mean) > radius) & (radius > 0.0)), float(radius[-1])),
        BERNSTEIN: Watched(first((low > 0.5) | (high < 0.5)), float(high[-1] - low[-1])),
        RATES: rates_apart(plays, successes),
    }


def coin(rng: np.random.Generator) -> dict[str, Watched]:
    """A decision at every step, by a fair coin: the classic test."""
    arms = rng.integers(2, size=STEPS)
    rewards = (rng.random(STEPS) < RATE).astype(float)
    return decided(arms, np.full(STEPS, 0.5), rewards)


def learning(rng: np.random.Generator) -> dict[str, Watched]:
    """A decision at every step, by a policy that learns from all decisions before."""
    arms, propensities = np.empty(STEPS, np.int64), np.empty(STEPS)
    rewards = (rng.random(STEPS) < RATE).astype(float)
    thompson(rng.random(STEPS), rewards, arms, propensities)
    return decided(arms, propensities, rewards)


@kernel(numba.void(VECTOR, VECTOR, numba.int64[::1], numba.float64[::1]))
def thompson(luck: Vector, rewards: Vector, arms: NDArray[np.int64], propensities: Vector) -> None:
    """Fill in the arms that Thompson sampling plays, and their probabilities, as if its posteriors were normal."""
    plays, successes = np.zeros(2), np.zeros(2)
    for t in range(len(arms)):
        means = (successes + 1.0) / (plays + 2.0)
        variances = means * (1.0 - means) / (plays + 3.0)
        z = (means[1] - means[0]) / math.sqrt(variances[0] + variances[1])
        p = min(max(0.5 * math.erfc(-z / math.sqrt(2.0)), FLOOR), 1.0 - FLOOR)
        arm = 1 if luck[t] < p else 0
        arms[t] = arm
        propensities[t] = p if arm else 1.0 - p
        plays[arm] += 1.0
        successes[arm] += rewards[t]


def decided(arms: NDArray[np.int64], propensities: Vector, rewards: Vector) -> dict[str, Watched]:
    """Watch the decisions of one run, an arm, its probability and its reward for each."""
    low, high = difference_sequence(aipw_terms(arms, rewards, propensities, 1, 0).cumsum(axis=0), alpha=ALPHA)
    played = np.stack([arms == 0, arms == 1], axis=1).astype(float)
    plays, successes = played.cumsum(axis=0), (played * rewards[:, None]).cumsum(axis=0)
    return {
        TEXTBOOK: textbook(plays, successes),
        ASYMPTOTIC: Watched(first((low > 0.0) | (high < 0.0)), float(high[-1] - low[-1]) / 2.0),
        BERNSTEIN: means_apart(arms, rewards, plays.astype(np.int64)),
        RATES: rates_apart(plays, successes),
    }


def first(alarms: NDArray[np.bool_]) -> int:
    """Return the first step with an alarm, from FEWEST on; 0: none."""
    looks = alarms[FEWEST - 1 :]
    return FEWEST + int(looks.argmax()) if looks.any() else 0


def z_test(plays: Vector, successes: Vector, z: float) -> tuple[NDArray[np.bool_], Vector]:
    """Tell after which steps the rates are more than z standard errors apart, and how much that is.

    Plays and successes of each arm are of shape [STEPS, 2].
    """
    rates = successes / np.maximum(plays, 1.0)
    radius = z * np.sqrt((rates * (1.0 - rates) / np.maximum(plays, 1.0)).sum(axis=1))
    enough = plays.min(axis=1) >= FEWEST_PLAYS
    return enough & (abs(rates[:, 1] - rates[:, 0]) > radius), radius


def textbook(plays: Vector, successes: Vector) -> Watched:
    """The test that takes every look for the only one."""
    alarms, radius = z_test(plays, successes, 1.959964)
    return Watched(first(alarms), float(radius[-1]))


def means_apart(arms: NDArray[np.int64], rewards: Vector, plays: NDArray[np.int64]) -> Watched:
    """Each arm's mean has its own interval, at half of alpha; arms differ where these have no point in common."""
    ends = []
    for arm in range(2):
        low, high = mean_sequence(rewards[arms == arm], alpha=ALPHA / 2.0)
        ends.append((np.append(0.0, low)[plays[:, arm]], np.append(1.0, high)[plays[:, arm]]))
    (low_0, high_0), (low_1, high_1) = ends
    radius = (high_0[-1] - low_0[-1] + high_1[-1] - low_1[-1]) / 2.0
    return Watched(first((low_0 > high_1) | (low_1 > high_0)), float(radius))


def rates_apart(plays: Vector, successes: Vector) -> Watched:
    """Each arm's rate has its own interval, at half of alpha; arms differ where these have no point in common.

    Only steps with rates 2.5 standard errors apart are looked at: at its tightest, an interval reaches 3.2 each way.
    """
    candidates = np.flatnonzero(z_test(plays, successes, 2.5)[0])
    alarm = 0
    for step in candidates[candidates >= FEWEST - 1].tolist():
        (low_0, high_0), (low_1, high_1) = map(interval, successes[step].tolist(), plays[step].tolist())
        if low_0 > high_1 or low_1 > high_0:
            alarm = step + 1
            break
    ends = [interval(s, n) for s, n in zip(successes[-1].tolist(), plays[-1].tolist(), strict=True)]
    return Watched(alarm, sum(high - low for low, high in ends) / 2.0)


@lru_cache(maxsize=1 << 20)
def interval(successes: float, n: float) -> tuple[float, float]:
    """The interval of one arm of two: many runs come by the same counts."""
    return rate_interval(successes, n, alpha=ALPHA / 2.0)


WAYS: dict[str, Callable[[np.random.Generator], dict[str, Watched]]] = {
    "in pairs": pairs,
    "by a fair coin": coin,
    "by a policy that learns": learning,
}


def watch(way: str, runs: int, seed: int = 20260101) -> dict[str, Row]:
    """What all methods made of so many runs."""
    rng = np.random.default_rng(seed)
    watched: dict[str, list[Watched]] = {}
    for number in range(runs):
        if number % 250 == 0:
            print(f"dealt {way}: run {number} of {runs}", file=sys.stderr, flush=True)
        for method, seen in WAYS[way](rng).items():
            watched.setdefault(method, []).append(seen)
    return {method: summary(seen) for method, seen in watched.items()}


def summary(seen: list[Watched]) -> Row:
    """Count the alarms. The error is at least that of a method which is wrong as often as it may be."""
    by_step = np.bincount([one.alarm for one in seen], minlength=STEPS + 1)[1:].cumsum() / len(seen)
    share = float(by_step[-1])
    error = math.sqrt(max(share * (1.0 - share), ALPHA * (1.0 - ALPHA)) / len(seen))
    return Row(share, error, float(np.mean([one.radius for one in seen])), by_step.tolist())


def measure(runs: int) -> dict[str, dict[str, Row]]:
    """The rows of every method by the way to deal, worked out by two processes."""
    with ProcessPoolExecutor(2) as pool:
        return dict(zip(WAYS, pool.map(watch, WAYS, [runs] * len(WAYS)), strict=True))


def draw(figures: dict[str, dict[str, Row]], path: Path) -> None:
    """Draw the share of runs that had a false alarm by each step."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    colours = dict(
        zip((TEXTBOOK, ASYMPTOTIC, BERNSTEIN, RATES), ("#c44e52", "#4c72b0", "#55a868", "#8172b3"), strict=True)
    )
    figure, panels = plt.subplots(1, len(figures), figsize=(13, 4), sharey=True, layout="constrained")
    steps = np.arange(FEWEST, STEPS + 1)
    for panel, (way, rows) in zip(panels, figures.items(), strict=True):
        for method, row in rows.items():
            panel.plot(steps, 100.0 * np.array(row.by_step[FEWEST - 1 :]), label=method, color=colours[method], lw=2)
        panel.axhline(100.0 * ALPHA, color="black", ls=":", lw=1, label="promised")
        panel.set(title=f"dealt {way}", xlabel="steps, after each a look", xscale="log", xlim=(FEWEST, STEPS))
        panel.set_xticks(MARKS, [f"{mark:,}" for mark in MARKS])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(bottom=0.0)
    panels[0].set_ylabel("runs with a false alarm so far, %")
    panels[0].legend(frameon=False, loc="upper left")
    figure.suptitle(f"Two arms that are equal, {RATE:.0%} each: how often does somebody who peeks see a difference?")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def table(figures: dict[str, dict[str, Row]]) -> None:
    """Print the figures."""
    print(f"{'':<31}{'false alarms':>15}{'':>9}{'radius':>9}   so far, after step")
    marks = "".join(f"{mark:>7,}" for mark in MARKS)
    for way, rows in figures.items():
        print(f"\n{'dealt ' + way:<55}{'at the end':>9}{marks}")
        for method, row in rows.items():
            share = f"{row.alarms:.2%} ± {row.error:.2%}"
            verdict = "holds" if row.holds else "broken"
            so_far = "".join(f"{row.by_step[mark - 1]:>7.1%}" for mark in MARKS)
            print(f"{method:<31}{share:>15}{verdict:>9}{row.radius:>9.4f}{so_far}")


def main() -> int:
    """Print the table and draw the picture; return 1 when an interval of ours is wrong more often than promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peeking", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    parser.add_argument("--json", action="store_true", help="print figures for a program, and draw nothing")
    arguments = parser.parse_args()
    runs = 200 if arguments.quick else 2_000
    figures = measure(runs)
    if arguments.json:
        print(json.dumps({way: {method: asdict(row) for method, row in rows.items()} for way, rows in figures.items()}))
    else:
        table(figures)
        draw(figures, PICTURE)
        print(f"\n{runs:,} runs of {STEPS:,} steps, a look after each from the {FEWEST}th; promised: {ALPHA:.0%}")
        print(f"drawn: {PICTURE}")
    return any(not row.holds for rows in figures.values() for method, row in rows.items() if method != TEXTBOOK)


if __name__ == "__main__":
    sys.exit(main())
