"""A policy in a world: what the router would do, through the same interface, round by round."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bandits.decay import HalfLife
from bandits.draw import sampler
from bandits.policy import Fitted, Policy, Vector
from bandits.worlds import Indices, Matrix, Rounds, World, check_count


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What became of R runs, noted at C checkpoints."""

    steps: Indices
    """[C], the checkpoints: after how many rounds."""
    regret: Matrix
    """[R, C], summed up to there: expected reward of the best allowed arm, less that of the arm played."""
    reward: Matrix
    """[R, C], the rewards that were earned, summed up to there."""
    shares: Matrix
    """[R, K], the part of all rounds in which each arm was played."""


class Run(NamedTuple):
    """What happened in each of T rounds."""

    arms: Indices
    """[T], the arm that was played."""
    earned: Vector
    """[T], the reward that it paid."""
    lost: Vector
    """[T], the expected reward of the best allowed arm, less its own."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """When rewards become known, and how they are forgotten.

    A reward is on its way for `delay` rounds. When `every` rewards have arrived since the last time, they are learnt
    together, and the policy is fitted anew. The half-life counts rounds, from the decision on.
    """

    delay: int = 0
    every: int = 1
    half_life: HalfLife | None = None

    def __post_init__(self) -> None:
        check_count("every", self.every)
        if self.delay < 0:
            raise ValueError(f"delay: must be 0 or more rounds, got {self.delay}")


AT_ONCE = Feedback()


def simulate(
    policy: Policy,
    world: World,
    steps: int,
    *,
    rng: np.random.Generator,
    runs: int = 1,
    feedback: Feedback = AT_ONCE,
    checkpoints: Sequence[int] = (),
) -> Result:
    """Play so many rounds, in so many independent runs.

    Each run has a generator of its own, spawned from `rng`: it makes the world's rounds first and then the salt of the
    draws, so different policies meet the same rounds. `checkpoints` rise up to `steps`, which is the last one if it is
    not named. A round takes a little longer than a fit; `race` plays the simplest worlds hundreds of times faster.
    Raises ValueError for a policy that reads other contexts than the world shows, and for checkpoints out of order.
    """
    if policy.features not in {0, world.features}:
        raise ValueError(f"policy: reads {policy.features} features, but the world shows {world.features}")
    names = [str(k) for k in range(world.arms)]

    def run(chance: np.random.Generator) -> Run:
        rounds = world.rounds(steps, chance)
        arms = _played(policy, rounds, sampler(str(chance.integers(2**63)), names), feedback)
        played = np.arange(steps), arms
        best = np.where(rounds.allowed, rounds.mean, 0.0).max(axis=1)
        return Run(arms, rounds.reward[played], best - rounds.mean[played])

    return added_up(run, world.arms, marked(steps, checkpoints), rng.spawn(runs))


def marked(steps: int, checkpoints: Sequence[int]) -> Indices:
    """Return the checkpoints with the last one, `steps`. Raise ValueError unless they rise from 1 at the least."""
    check_count("steps", steps)
    marks = np.array([*checkpoints, steps] if steps not in checkpoints else checkpoints, dtype=np.intp)
    if marks[0] < 1 or (np.diff(marks) <= 0).any() or marks[-1] > steps:
        raise ValueError(f"checkpoints: must rise, from 1 to {steps}")
    return marks


def added_up(
    run: Callable[[np.random.Generator], Run], arms: int, marks: Indices, chances: Sequence[np.random.Generator]
) -> Result:
    """Make one run with each of the generators, and keep what the result shows of it."""
    check_count("runs", len(chances))
    regret, reward = np.empty((2, len(chances), len(marks)))
    shares = np.empty((len(chances), arms))
    for r, chance in enumerate(chances):
        one = run(chance)
        regret[r] = np.cumsum(one.lost)[marks - 1]
        reward[r] = np.cumsum(one.earned)[marks - 1]
        shares[r] = np.bincount(one.arms, minlength=arms) / len(one.arms)
    return Result(marks, regret, reward, shares)


def _played(policy: Policy, rounds: Rounds, draw: Callable[[Vector, str], int], feedback: Feedback) -> Indices:
    """The arm of each round, [T]."""
    steps, arms = rounds.mean.shape
    delay, every, half_life = feedback.delay, feedback.every, feedback.half_life
    eras = {0: np.zeros((arms, policy.width))}
    born = np.zeros(arms, dtype=np.intp)
    unknown: deque[tuple[int, int, Vector]] = deque()  # round, arm and delta of the rewards that are not learnt yet
    played = np.empty(steps, dtype=np.intp)

    def fit(now: int) -> Fitted:
        return policy.fit(half_life.sums(eras, now) if half_life else eras[0])

    def learn(time: int, arm: int, delta: Vector) -> None:
        era, weight = (half_life.era(time), half_life.weight(time)) if half_life else (0, 1.0)
        eras.setdefault(era, np.zeros((arms, policy.width)))[arm] += weight * delta

    now = 0  # when rewards were last learnt
    fitted = fit(now)
    for t in range(steps):
        if rounds.fresh[t].any():
            born[rounds.fresh[t]] = t
            for sums in eras.values():
                sums[rounds.fresh[t]] = 0
            fitted = fit(now)
        context = rounds.context[t] if policy.features else None
        p = fitted(context, rounds.allowed[t])
        arm = played[t] = draw(p, str(t))
        unknown.append((t, arm, policy.delta(float(rounds.reward[t, arm]), context, float(p[arm]))))
        arrived = t + 1 - delay
        if arrived > 0 and arrived % every == 0:
            for time, arm, delta in [unknown.popleft() for _ in range(every)]:
                if born[arm] <= time:  # else its arm is gone
                    learn(time, arm, delta)
            now = t
            fitted = fit(now)
    return played
