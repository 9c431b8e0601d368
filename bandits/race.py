"""`simulate`, compiled: the same policies in worlds of rates, for the tables of the literature with their 10^8 rounds.

Instead of working out p and drawing from it, an arm is played by its index: Thompson sampling draws one Beta variable
for each arm and plays the greatest, which it does with probability p, exactly. A round takes 0.1 to 3 µs.
The loop calls kernels of other files, so Numba's cache cannot hold it: the first race waits some seconds for the
compiler. Several races may run in threads, as the loop lets the GIL go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

from bandits.bernoulli import Bernoulli, Spells
from bandits.floor import Floor
from bandits.greedy import EpsilonGreedy
from bandits.policy import Policy, Vector
from bandits.simulate import AT_ONCE, Feedback, Result, Run, added_up, marked
from bandits.thompson import Thompson
from bandits.ucb import UCB1, KLUCBPlus, kl_ucb_plus_index, ucb1_index
from bandits.worlds import Indices

BETA_SAMPLE, SAMPLE_MEAN, UCB1_BOUND, KL_UCB_PLUS_BOUND = range(4)


class Player(NamedTuple):
    """A policy in compiled form: in each round the arm of the greatest index, or any."""

    kind: int
    """Of the index: one of the four above."""
    first: float = 0.0
    """The index's parameter, if it has one."""
    second: float = 0.0
    """Another."""
    anyone: float = 0.0
    """The probability that the arm is drawn from all of them equally instead."""


def player(policy: Policy, arms: int) -> Player:
    """Return the policy's compiled form. Raises ValueError where there is none."""
    match policy:
        case Thompson(alpha, beta):
            return Player(BETA_SAMPLE, alpha, beta)
        case EpsilonGreedy(epsilon, math.inf):
            return Player(SAMPLE_MEAN, anyone=epsilon)
        case UCB1(exploration):
            return Player(UCB1_BOUND, exploration)
        case KLUCBPlus():
            return Player(KL_UCB_PLUS_BOUND)
        case Floor(inner, floor):
            under = player(inner, arms)
            return under._replace(anyone=1.0 - (1.0 - min(arms * floor, 1.0)) * (1.0 - under.anyone))
    raise ValueError(f"policy: no compiled form of {type(policy).__name__}; `simulate` plays every policy")


@numba.njit(nogil=True)
def index(player: Player, rng: np.random.Generator, n: float, s: float, t: float) -> float:
    """The index of an arm that earned s in n of all t plays."""
    if player.kind == BETA_SAMPLE:
        return rng.beta(player.first + s, player.second + n - s)
    if player.kind == UCB1_BOUND:
        return ucb1_index(n, s, t, player.first)
    if player.kind == KL_UCB_PLUS_BOUND:
        return kl_ucb_plus_index(n, s, t)
    return s / n if n > 0.0 else np.inf


@numba.njit(nogil=True)
def chosen(player: Player, rng: np.random.Generator, n: Vector, s: Vector) -> int:
    """The arm that is played after n plays [K] that earned s [K]; arms of equal index share the rounds equally."""
    if rng.random() < player.anyone:
        return int(rng.random() * len(n))
    t = n.sum()
    arm, greatest, ties = 0, -np.inf, 0
    for k in range(len(n)):
        value = index(player, rng, n[k], s[k], t)
        if value > greatest:
            arm, greatest, ties = k, value, 1
        elif value == greatest:
            ties += 1
            if rng.random() * ties < 1.0:
                arm = k
    return arm


@numba.njit(nogil=True)
def play(
    player: Player, spells: Spells, steps: int, rng: np.random.Generator, delay: int, every: int, keep: float
) -> tuple[Indices, Vector]:
    """The arm of each round, [T], and what it paid, [T]. In each round the sums are multiplied by `keep`."""
    arms = spells.mean.shape[1]
    n, s, born = np.zeros(arms), np.zeros(arms), np.zeros(arms, np.intp)
    played, earned = np.empty(steps, np.intp), np.empty(steps)
    spell = -1
    for t in range(steps):
        if spell + 1 < len(spells.start) and t == spells.start[spell + 1]:
            spell += 1
            for k in range(arms):
                if spells.fresh[spell, k]:
                    n[k] = s[k] = 0.0
                    born[k] = t
        arm = played[t] = chosen(player, rng, n, s)
        earned[t] = rng.random() < spells.mean[spell, arm]
        arrived = t + 1 - delay
        if arrived > 0 and arrived % every == 0:
            n *= keep**every
            s *= keep**every
            for time in range(arrived - every, arrived):
                arm = played[time]
                if born[arm] <= time:  # else it is gone
                    n[arm] += keep ** (t - time)
                    s[arm] += keep ** (t - time) * earned[time]
    return played, earned


def race(
    policy: Policy,
    world: Bernoulli,
    steps: int,
    *,
    rng: np.random.Generator,
    runs: int = 1,
    feedback: Feedback = AT_ONCE,
    checkpoints: Sequence[int] = (),
) -> Result:
    """`simulate` with other random numbers: what it returns has the same distribution.

    Raises ValueError for a policy that has no compiled form, and what `simulate` raises.
    """
    compiled = player(policy, world.arms)
    keep = 0.5 ** (1 / feedback.half_life.seconds) if feedback.half_life else 1.0

    def run(chance: np.random.Generator) -> Run:
        spells = world.spells(steps, chance)
        arms, earned = play(compiled, spells, steps, chance, feedback.delay, feedback.every, keep)
        spell = spells.at(steps)
        return Run(arms, earned, spells.mean.max(axis=1)[spell] - spells.mean[spell, arms])

    return added_up(run, world.arms, marked(steps, checkpoints), rng.spawn(runs))
