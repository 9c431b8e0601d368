"""Who learns most from bandit feedback? Progressive-validation loss on real data sets, ours beside other libraries.

A learner meets every row once, in the same shuffled orders as all others. It sees the features, picks an arm and is
told whether that arm was right; the loss is the share of rows where it was not, the first ones included. Each library
is shown with the best setting of its own grid: all are tried on the first shuffle, the best few on every one.

The others learn after each reward. Ours is used as the router uses it: deltas are added to the sums at once, and the
policy is fitted again behind the requests, here whenever there are 1 % more rewards.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np

from bandits import LinearThompson, LinUCB, Policy, SquareCB, Vector, sampler
from benchmarks.datasets import DATASETS, DataSet, load
from benchmarks.peers import LIBRARIES, Learner, module, peer

OURS = "Croupier"
UNTUNED = "SquareCB as is"
"""Ours without a grid: the defaults of the policy that we recommend."""

TOLD_ALL = "told all"
"""Our ridge regression when it is told what every arm would have earned. What it gains is the price of exploring."""

GROWTH = 0.01
"""How many more rewards there are, as a share, when ours is fitted again."""

WORKERS = 2
SHUFFLES = 5
FINALISTS = 3
"""Settings of a library that are tried on every shuffle."""

QUICK = ("iris", "wine", "breast_cancer")

Kind: TypeAlias = Callable[..., Policy]
"""A policy to be made, for a number of `features`."""

KINDS: dict[str, tuple[Kind, str, Sequence[float]]] = {
    "SquareCB": (SquareCB, "gamma", (100.0, 1000.0)),
    "LinUCB": (LinUCB, "alpha", (0.03, 0.1, 0.3)),
    "LinTS": (LinearThompson, "v", (0.02, 0.1)),
}
PRIORS: dict[str, dict[str, float]] = {
    "l2 1": {"l2": 1.0},
    "l2 10": {"l2": 10.0},
    "l2 30": {"l2": 30.0},
    "l2 10 from 1/2": {"l2": 10.0, "expected": 0.5},
}
POLICIES: dict[str, Kind] = {
    f"{name} {value:g}, {known}": partial(kind, **{option: value}, **prior)
    for name, (kind, option, values) in KINDS.items()
    for value in values
    for known, prior in PRIORS.items()
}
"""Our grid."""


class Ours:
    """A policy as the router has it: sums, a fitted snapshot of them, and the sampler."""

    def __init__(self, policy: Policy, arms: int, seed: int) -> None:
        self._policy = policy
        self._sums = np.zeros((arms, policy.width))
        self._allowed = np.ones(arms, dtype=bool)
        self._fitted = policy.fit(self._sums)
        self._draw = sampler(f"shuffle {seed}", [str(arm) for arm in range(arms)])
        self._decisions = self._rewards = self._fitted_to = 0

    def prepared(self, context: Vector | None) -> Vector | None:
        return context

    def choose(self, context: Vector | None) -> tuple[int, float]:
        if self._rewards > self._fitted_to * (1.0 + GROWTH):
            self._fitted, self._fitted_to = self._policy.fit(self._sums), self._rewards
        self._decisions += 1
        p = self._fitted(context, self._allowed)
        arm = self._draw(p, str(self._decisions))
        return arm, float(p[arm])

    def learn(self, context: Vector | None, arm: int, reward: float, propensity: float) -> None:
        self._sums[arm] += self._policy.delta(reward, context, propensity)
        self._rewards += 1


def settings(library: str) -> Sequence[str]:
    """The grid of a library."""
    if library in {UNTUNED, TOLD_ALL}:
        return [""]
    return list(POLICIES if library == OURS else module(library).SETTINGS)


def made(library: str, setting: str, data: DataSet, seed: int) -> Learner:
    """A learner for a data set, that knows nothing yet."""
    if library in LIBRARIES:
        return peer(library, module(library).SETTINGS[setting], data.arms, seed)
    ours = POLICIES | {UNTUNED: SquareCB, TOLD_ALL: partial(LinUCB, alpha=0.0)}
    return Ours(ours[setting or library](features=data.features), data.arms, seed)


def loss(data: DataSet, learner: Learner, shuffle: int, *, told_all: bool = False) -> float:
    """The share of a data set's rows, in the order of a shuffle, on which the learner was wrong."""
    right = 0
    for row in np.random.default_rng(shuffle).permutation(data.rows):
        context = learner.prepared(data.contexts[row])
        arm, propensity = learner.choose(context)
        rewards = data.rewards[row]
        right += int(rewards[arm])
        for known in range(data.arms) if told_all else (arm,):
            learner.learn(context, known, float(rewards[known]), propensity)
    return 1.0 - right / data.rows


class Run(NamedTuple):
    """One learner's pass over one shuffle of a data set."""

    data: str
    library: str
    setting: str
    shuffle: int

    def loss(self) -> float:
        """Make the learner, and let it play."""
        data = load(self.data)
        learner = made(self.library, self.setting, data, self.shuffle)
        return loss(data, learner, self.shuffle, told_all=self.library == TOLD_ALL)


def play(runs: Sequence[Run], workers: Executor, stage: str) -> dict[Run, float]:
    """The loss of each run; tells on standard error what is done."""
    started = time.monotonic()
    losses: dict[Run, float] = {}
    left = Counter((run.data, run.library) for run in runs)
    futures = {workers.submit(run.loss): run for run in runs}
    for future in as_completed(futures):
        run = futures[future]
        losses[run] = future.result()
        left[run.data, run.library] -= 1
        if not left[run.data, run.library]:
            done = f"{len(losses)} of {len(runs)} after {time.monotonic() - started:.0f} s"
            print(f"{stage}: {run.data}, {run.library} done; {done}", file=sys.stderr, flush=True)
    return losses


Losses = dict[str, dict[str, dict[str, list[float]]]]
"""By data set, library and finalist: the loss on each shuffle."""


def measure(names: Iterable[str], shuffles: int) -> Losses:
    """Every setting on the first shuffle, the best of each library on all."""
    from threadpoolctl import threadpool_limits

    slow_first = sorted(names, key=lambda name: load(name).rewards.size * load(name).features, reverse=True)
    groups = [(name, library) for name in slow_first for library in (*LIBRARIES, OURS, UNTUNED, TOLD_ALL)]
    grids = [(*group, setting) for group in groups for setting in settings(group[1])]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, spawn, initializer=threadpool_limits, initargs=(1,)) as workers:
        first = play([Run(*tried, 0) for tried in grids], workers, "first shuffle")
        finalists = [
            (*group, setting)
            for group in groups
            for setting in sorted(settings(group[1]), key=lambda tried: first[Run(*group, tried, 0)])[:FINALISTS]
        ]
        rest = play([Run(*tried, shuffle) for tried in finalists for shuffle in range(1, shuffles)], workers, "others")
    losses: Losses = {name: {} for name in names}
    for name, library, setting in finalists:
        found = [(first | rest)[Run(name, library, setting, shuffle)] for shuffle in range(shuffles)]
        losses[name].setdefault(library, {})[setting] = found
    return losses


class Best(NamedTuple):
    """The best setting of a library on one data set, with its loss on each shuffle."""

    setting: str
    losses: Vector

    @property
    def mean(self) -> float:
        """Over the shuffles."""
        return float(self.losses.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return standard_error(self.losses)

    def __str__(self) -> str:
        return f"{self.mean:.4f} ±{self.error:.4f}"


def standard_error(losses: Vector) -> float:
    """Of the mean of two or more."""
    return float(losses.std(ddof=1)) / math.sqrt(len(losses))


def best(losses: Mapping[str, Sequence[float]]) -> Best:
    """The setting with the least mean loss."""
    setting = min(losses, key=lambda setting: sum(losses[setting]))
    return Best(setting, np.array(losses[setting]))


def verdict(ours: Best, others: Iterable[Best]) -> str:
    """Whether ours is best, tied or behind. Tied: within one standard error of the paired difference to their best."""
    difference = ours.losses - min(others, key=lambda other: other.mean).losses
    if abs(difference.mean()) <= standard_error(difference):
        return "tied"
    return "best" if difference.mean() < 0 else "behind"


WHY = {
    "breast_cancer": "by one row of 569: a greedy ridge regression explores nothing, and need not with two arms.",
    "phishing": "by one or two rows of 1,250; all four libraries are about as good.",
}
"""Where ours is behind: why, as far as it is known."""


def report(losses: Losses, shuffles: int) -> None:
    """Print the losses, the settings behind them, and the count."""
    rivals = [OURS, *LIBRARIES]
    columns = [OURS, UNTUNED, *LIBRARIES, TOLD_ALL]
    chosen = {name: {library: best(found) for library, found in row.items()} for name, row in losses.items()}
    verdicts = {name: verdict(row[OURS], [row[library] for library in LIBRARIES]) for name, row in chosen.items()}
    print(f"{'loss':<15}{'rows':>5}{'arms':>5}{'features':>9}{''.join(f'{name:>17}' for name in columns)}  ours is")
    for name, row in chosen.items():
        data = load(name)
        least = min(row[library].mean for library in rivals)
        stars = {library: "*" if library in rivals and row[library].mean == least else " " for library in columns}
        cells = "".join(f"{row[library]!s:>16}{stars[library]}" for library in columns)
        print(f"{name:<15}{data.rows:>5}{data.arms:>5}{data.features:>9}{cells}  {verdicts[name]}")
    print(f"\n{'setting':<15}{''.join(f'{library:>29}' for library in rivals)}")
    for name, row in chosen.items():
        print(f"{name:<15}{''.join(f'{row[library].setting:>29}' for library in rivals)}")
    grids = ", ".join(f"{len(settings(library))} of {library}" for library in rivals)
    print(
        f"\nLoss: mean of {shuffles} shuffles ± its standard error; * the least of the four libraries.\n"
        f"Settings: {grids}, all on the first shuffle and the best {FINALISTS} of each on every one.\n"
        f"Ours is fitted again whenever there are {GROWTH:.0%} more rewards; the others learn from each at once."
    )
    for name in chosen:
        print(f"{name}: {load(name).source} ({load(name).licence})")
    for name, reason in WHY.items():
        if verdicts.get(name) == "behind":
            print(f"Behind on {name}: {reason}")
    count = Counter(verdicts.values())
    print(
        f"Best or tied on {count['best'] + count['tied']} of {len(verdicts)}: "
        f"{count['best']} best, {count['tied']} tied within one standard error, {count['behind']} behind."
    )


def main() -> int:
    """Prints the table. Returns 0 whoever is best: that is a finding, no fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contextual", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"two shuffles of {', '.join(QUICK)}")
    parser.add_argument("--json", action="store_true", help="print every loss for a program")
    arguments = parser.parse_args()
    names, shuffles = (QUICK, 2) if arguments.quick else (tuple(DATASETS), SHUFFLES)
    losses = measure(names, shuffles)
    if arguments.json:
        print(json.dumps(losses))
    else:
        report(losses, shuffles)
    return 0


if __name__ == "__main__":
    sys.exit(main())
