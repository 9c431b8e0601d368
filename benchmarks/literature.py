"""Worlds of the bandit literature, who plays in them, and the figures of regret that are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from bandits import Policy, Thompson
from bandits.bernoulli import Mortal, Piecewise, Stationary
from bandits.decay import HalfLife
from bandits.floor import Floor
from bandits.linear_thompson import LinearThompson
from bandits.linucb import LinUCB
from bandits.simulate import AT_ONCE, Feedback
from bandits.squarecb import SquareCB
from bandits.ucb import UCB1, KLUCBPlus
from bandits.worlds import Linear, World

LINEUP: dict[str, Policy] = {"Thompson": Thompson(), "KL-UCB+": KLUCBPlus(), "UCB1": UCB1()}

TEN_LOW = (0.1, *3 * [0.05], *3 * [0.02], *3 * [0.01])
TEN_CLOSE = (0.5, *9 * [0.4])


class Whose(Enum):
    """Where a figure comes from, and so what is asked of ours."""

    PUBLISHED = "published"
    """It stands in the paper: ours must lie within 10 %."""
    EARLIER = "earlier"
    """We measured it before, by another implementation that shares no code with this one: within 4 standard errors."""
    SIMILAR = "similar"
    """We measured it before, of a model that differs in a detail: nothing, it shows the size."""


class Known(NamedTuple):
    """A figure to stand beside ours: a mean, and its standard error if one is known."""

    whose: Whose
    mean: float
    error: float | None = None


@dataclass(frozen=True)
class Trial:
    """A policy in a world, so many times."""

    table: str
    instance: str
    name: str
    policy: Policy
    world: World
    steps: int
    runs: int
    feedback: Feedback = AT_ONCE
    checkpoints: tuple[int, ...] = ()
    unit: float = 1.0
    """Regret is told in the source's unit of reward, so many of ours."""
    known: Known | None = None


def stationary() -> list[Trial]:
    """Where the best arm stays the best.

    Instances: A. Garivier, O. Cappé, COLT 2011, scenarios 1 and 2; D. Russo et al., "A tutorial on Thompson sampling",
    Foundations and Trends in Machine Learning 2018.
    """
    instances = {
        "two arms": ((0.9, 0.8), 5000, 2000, ((9.40, 0.46), (9.12, 0.19), (64.05, 0.32))),
        "ten low arms": (TEN_LOW, 20_000, 160, ((89.8, 2.0), (78.6, 2.1), (844.0, 4.1))),
        "three arms": ((0.9, 0.8, 0.7), 1000, 3000, ((11.08, 0.17), (11.31, 0.11), (46.14, 0.12))),
    }
    return [
        Trial(
            "stationary",
            f"{instance}, T {steps:,}",
            *of_lineup,
            Stationary(means),
            steps,
            runs,
            known=Known(Whose.EARLIER, *figure),
        )
        for instance, (means, steps, runs, figures) in instances.items()
        for of_lineup, figure in zip(LINEUP.items(), figures, strict=True)
    ]


def mortal() -> list[Trial]:
    """Ten arms that come and go, rewards reported every so many rounds.

    O. Chapelle, L. Li, "An empirical evaluation of Thompson sampling", NeurIPS 2011, table 1: means of 100 runs.
    """
    published = {1: 9105, 32: 9451, 100: 11_550}
    trials = []
    for delay, figure in published.items():
        trial = Trial(
            "mortal",
            "rewards at once" if delay == 1 else f"rewards every {delay} rounds",
            "Thompson",
            Thompson(),
            Mortal(),
            10**6,
            24,
            Feedback(every=delay),
        )
        trials.append(replace(trial, known=Known(Whose.PUBLISHED, figure)))
        trials.append(replace(trial, name="UCB1", policy=UCB1(), runs=4))
    return trials


def drifting() -> list[Trial]:
    """The rates change every 1000 rounds. The instance is SMPyBandits' (L. Besson, 2018)."""
    world = Piecewise(((0.3, 0.5, 0.9), (0.3, 0.2, 0.9), (0.3, 0.2, 0.1), (0.7, 0.2, 0.1), (0.7, 0.5, 0.1)), 1000)
    floor = 0.05 / world.arms
    players: list[tuple[str, Policy, float | None, tuple[float, float | None] | None]] = [
        ("Thompson", Thompson(), None, (483.3, 9.1)),
        ("Thompson, 5 % floor", Floor(Thompson(), floor), None, (902.8, 11.0)),
        ("Thompson, γ .95", Thompson(), 0.95, (424.7, None)),
        ("Thompson, γ .98", Thompson(), 0.98, (258.8, None)),
        ("Thompson, γ .99", Thompson(), 0.99, (185.9, None)),
        ("Thompson, γ .995", Thompson(), 0.995, (155.9, 0.7)),
        ("Thompson, γ .998", Thompson(), 0.998, (180.4, None)),
        ("Thompson, γ .995, 5 % floor", Floor(Thompson(), floor), 0.995, None),
        ("KL-UCB+", KLUCBPlus(), None, None),
        ("KL-UCB+, γ .995", KLUCBPlus(), 0.995, None),
        ("UCB1", UCB1(), None, None),
    ]
    return [
        Trial(
            "drifting",
            "",
            name,
            policy,
            world,
            5000,
            500,
            Feedback(half_life=None if discount is None else HalfLife.of_discount(discount)),
            known=None if figure is None else Known(Whose.EARLIER, *figure),
        )
        for name, policy, discount, figure in players
    ]


def contextual() -> list[Trial]:
    """Rewards linear in the context. Parameters are named on the source's scale of rewards, -1 to 1.

    Ours is half of that, and our models have an intercept.
    """
    ridge = 1.0
    players: list[tuple[str, Policy, float, float]] = [
        ("greedy", LinUCB(10, alpha=0.0, l2=ridge), 348.5, 33.0),
        ("LinUCB, α .1", LinUCB(10, alpha=0.05, l2=ridge), 137.8, 14.0),
        ("LinUCB, α .3", LinUCB(10, alpha=0.15, l2=ridge), 58.6, 1.3),
        ("LinUCB, α 1", LinUCB(10, alpha=0.5, l2=ridge), 52.3, 1.1),
        ("linear Thompson, v .1", LinearThompson(10, v=0.05, l2=ridge), 94.5, 9.0),
        ("linear Thompson, v .3", LinearThompson(10, v=0.15, l2=ridge), 165.3, 1.9),
        ("SquareCB, γ 10 √t", SquareCB(10, gamma=20.0, l2=ridge), 222.9, 2.8),
        ("SquareCB, γ 100 √t", SquareCB(10, gamma=200.0, l2=ridge), 186.7, 15.0),
    ]
    return [
        Trial("contextual", "", name, policy, Linear(), 10_000, 5, unit=2.0, known=Known(Whose.SIMILAR, mean, error))
        for name, policy, mean, error in players
    ]


def curve() -> list[Trial]:
    """One instance, from the first round to the millionth: O. Chapelle, L. Li, NeurIPS 2011, figure 1."""
    marks = tuple(sorted({round(10 ** (i / 10)) for i in range(61)}))
    runs = {"Thompson": 16, "KL-UCB+": 10, "UCB1": 10}
    return [
        Trial("curve", "", name, policy, Stationary(TEN_CLOSE), 10**6, runs[name], checkpoints=marks)
        for name, policy in LINEUP.items()
    ]


def constants() -> list[tuple[str, tuple[float, ...], int, float]]:
    """Instance, rates, horizon and the constant of Lai and Robbins, as worked out earlier.

    The last four are those of Chapelle and Li; SMPyBandits prints 7.52 for the fifth.
    """
    return [
        ("two arms, .9 .8", (0.9, 0.8), 5000, 2.252100),
        ("ten arms, .1 3x.05 3x.02 3x.01", TEN_LOW, 20_000, 17.445174),
        ("three arms, .9 .8 .7", (0.9, 0.8, 0.7), 1000, 3.553644),
        ("low rates, .2 .25", (0.2, 0.25), 10_000, 7.140708),
        ("nine arms, .1 to .9", tuple(k / 10 for k in range(1, 10)), 10_000, 7.516516),
        (".5 9x.4", TEN_CLOSE, 1_000_000, 44.6971),
        (".5 9x.48", (0.5, *9 * [0.48]), 1_000_000, 224.940),
        (".5 99x.4", (0.5, *99 * [0.4]), 1_000_000, 491.669),
        (".5 99x.48", (0.5, *99 * [0.48]), 1_000_000, 2474.34),
    ]
