"""Worlds to try a policy in: what every arm would pay in every round, whoever plays.

A world is a small frozen value. Chance is an argument: the same generator state makes the same rounds, so two policies
that are given the same seed meet the same contexts and the same rewards, and can be compared in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float64]
Masks: TypeAlias = NDArray[np.bool_]
Indices: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Rounds:
    """T rounds among K arms."""

    context: Matrix
    """[T, d], what is known before an arm is chosen."""
    allowed: Masks
    """[T, K], at least one in each round."""
    mean: Matrix
    """[T, K], the expected reward of each arm in [0, 1], given the context: what regret is measured by."""
    reward: Matrix
    """[T, K], what each arm would pay, in [0, 1]. Only that of the arm that is played becomes known."""
    fresh: Masks
    """[T, K], where a new arm stands in an old one's place from this round on: what was learnt there is void."""


class World(Protocol):
    """Makes rounds. The memory they take grows with rounds times arms."""

    @property
    def arms(self) -> int:
        """K."""

    @property
    def features(self) -> int:
        """d, how many numbers a context holds; 0: there is none."""

    def rounds(self, steps: int, rng: np.random.Generator) -> Rounds:
        """So many rounds, by the generator's chance."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Expected rewards are linear in the context: (1 + θ·x) / 2, θ of each arm and x uniform on the unit sphere.

    The noise has the standard deviation `noise`, less where a reward would leave [0, 1].
    """

    arms: int = 10
    features: int = 10
    noise: float = 0.05

    def __post_init__(self) -> None:
        check_count("arms", self.arms)
        check_count("features", self.features)
        _check_noise(self.noise)

    def rounds(self, steps: int, rng: np.random.Generator) -> Rounds:
        theta = _on_sphere(self.arms, self.features, rng)
        context = _on_sphere(steps, self.features, rng)
        return _noisy(context, (1 + context @ theta.T) / 2, self.noise, rng)


@dataclass(frozen=True, slots=True)
class Wheel:
    """No linear model can see it: five arms, contexts uniform in the unit disc, and a treasure beyond a radius.

    Arm 0 always pays 1.2 in the mean. The others pay 1, but beyond the radius one of them, by the quadrant, pays 50.
    Here all is divided by 50.
    C. Riquelme, G. Tucker, J. Snoek, "Deep Bayesian bandits showdown", ICLR 2018.
    """

    radius: float = 0.95
    noise: float = 0.0002

    def __post_init__(self) -> None:
        check_rates("radius", (self.radius,))
        _check_noise(self.noise)

    @property
    def arms(self) -> int:
        return 5

    @property
    def features(self) -> int:
        return 2

    def rounds(self, steps: int, rng: np.random.Generator) -> Rounds:
        context = _on_sphere(steps, 2, rng) * np.sqrt(rng.random((steps, 1)))
        mean = np.tile([1.2 / 50, 1 / 50, 1 / 50, 1 / 50, 1 / 50], (steps, 1))
        far = np.hypot(*context.T) > self.radius
        quadrant = 1 + 2 * (context[:, 0] < 0) + (context[:, 1] < 0)
        mean[far, quadrant[far]] = 1.0
        return _noisy(context, mean, self.noise, rng)


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """A labelled data set as a bandit: an arm for each class, which pays 1 on the rows of that class and 0 elsewhere.

    The rows come in an order drawn by chance, and again in another one when all have been shown. The regret is the
    number of mistakes.
    J. Langford, T. Zhang, "The epoch-greedy algorithm for contextual multi-armed bandits", NeurIPS 2007.
    """

    X: Matrix
    """[n, d], finite."""
    y: NDArray[np.integer]
    """[n], classes from 0 on."""

    def __post_init__(self) -> None:
        if self.X.ndim != 2 or not self.X.size or not np.isfinite(self.X).all():
            raise ValueError("X: must be finite numbers of the shape [rows, features]")
        if self.y.shape != self.X.shape[:1] or not np.issubdtype(self.y.dtype, np.integer) or self.y.min() < 0:
            raise ValueError(f"y: must be {len(self.X)} integers from 0 on, one for each row of X")

    @property
    def arms(self) -> int:
        return int(self.y.max()) + 1

    @property
    def features(self) -> int:
        return int(self.X.shape[1])

    def rounds(self, steps: int, rng: np.random.Generator) -> Rounds:
        passes = -(-steps // len(self.X))
        order = np.concatenate([rng.permutation(len(self.X)) for _ in range(passes)])[:steps]
        mean = np.eye(self.arms)[self.y[order]]
        return _noisy(np.ascontiguousarray(self.X[order], np.float64), mean, 0.0, rng)


@dataclass(frozen=True, slots=True)
class Sleeping:
    """Another world in which each arm is there only in some rounds, with the probability `awake`; one always is.

    R. Kleinberg, A. Niculescu-Mizil, Y. Sharma, "Regret bounds for sleeping experts and bandits", COLT 2008.
    """

    world: World
    awake: float = 0.8

    def __post_init__(self) -> None:
        check_rates("awake", (self.awake,))

    @property
    def arms(self) -> int:
        return self.world.arms

    @property
    def features(self) -> int:
        return self.world.features

    def rounds(self, steps: int, rng: np.random.Generator) -> Rounds:
        rounds = self.world.rounds(steps, rng)
        awake = rng.random((steps, self.arms)) < self.awake
        awake[np.arange(steps), rng.integers(self.arms, size=steps)] = True
        return Rounds(rounds.context, rounds.allowed & awake, rounds.mean, rounds.reward, rounds.fresh)


def _on_sphere(points: int, dimensions: int, rng: np.random.Generator) -> Matrix:
    """Points uniform on the unit sphere."""
    x = rng.standard_normal((points, dimensions))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def _noisy(context: Matrix, mean: Matrix, noise: float, rng: np.random.Generator) -> Rounds:
    """Rounds whose rewards scatter evenly around the mean, so far as [0, 1] has room on both sides of it."""
    reach = np.minimum(math.sqrt(3) * noise, np.minimum(mean, 1 - mean))
    reward = mean + reach * rng.uniform(-1, 1, mean.shape)
    everyone, nobody = np.ones(mean.shape, dtype=bool), np.zeros(mean.shape, dtype=bool)
    return Rounds(context, everyone, mean, reward, nobody)


def _check_noise(noise: float) -> None:
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise: must be a standard deviation, 0 or more, got {noise}")


def check_rates(name: str, rates: Sequence[float]) -> None:
    """Raise ValueError unless there are rates, all in [0, 1]."""
    if not rates or not all(0 <= rate <= 1 for rate in rates):  # false for NaN too
        raise ValueError(f"{name}: must be numbers from 0 to 1, got {list(rates)}")


def check_count(name: str, count: int) -> None:
    """Raise ValueError unless it counts at least one."""
    if count < 1:
        raise ValueError(f"{name}: must be at least 1, got {count}")
