"""Worlds without a context, whose arms pay 1 at some rate and 0 otherwise; and the least regret that they allow."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bandits.worlds import Indices, Masks, Matrix, Rounds, check_count, check_rates


class Spells(NamedTuple):
    """Stretches of rounds in which no arm's rate changes: S of them, each lasts until the next one starts."""

    start: Indices
    """[S], each spell's first round, rising from 0."""
    mean: Matrix
    """[S, K], the rates."""
    fresh: Masks
    """[S, K], the arms that are new."""

    def at(self, steps: int) -> Indices:
        """Which spell each of so many rounds falls into, [T]."""
        return np.repeat(np.arange(len(self.start)), np.diff(self.start, append=steps))


class Bernoulli(ABC):
    """Half of a world whose arms pay 1 at some rate and 0 otherwise, without a context: everything but the rates."""

    __slots__ = ()

    @property
    @abstractmethod
    def arms(self) -> int:
        """K."""

    @property
    def features(self) -> int:
        return 0

    @abstractmethod
    def spells(self, steps: int, rng: np.random.Generator) -> Spells:
        """The rates over so many rounds."""

    def rounds(self, steps: int, rng: np.random.Generator) -> Rounds:
        spells = self.spells(steps, rng)
        mean = spells.mean[spells.at(steps)]
        fresh = np.zeros(mean.shape, dtype=bool)
        fresh[spells.start] = spells.fresh
        reward = (rng.random(mean.shape) < mean).astype(np.float64)
        return Rounds(np.empty((steps, 0)), np.ones(mean.shape, dtype=bool), mean, reward, fresh)


@dataclass(frozen=True, slots=True)
class Stationary(Bernoulli):
    """Each arm pays at its rate for ever."""

    means: tuple[float, ...]

    def __post_init__(self) -> None:
        check_rates("means", self.means)

    @property
    def arms(self) -> int:
        return len(self.means)

    def spells(self, steps: int, rng: np.random.Generator) -> Spells:
        return _spells(np.array([self.means]), every=1, steps=steps)


@dataclass(frozen=True, slots=True)
class Piecewise(Bernoulli):
    """The rates change every so many rounds, all at once, through a list; the last ones stay.

    A. Garivier, E. Moulines, "On upper-confidence bound policies for switching bandit problems", ALT 2011.
    """

    means: tuple[tuple[float, ...], ...]
    every: int

    def __post_init__(self) -> None:
        if not self.means or len({len(rates) for rates in self.means}) > 1:
            raise ValueError("means: one row of rates for each piece, all of one length")
        for rates in self.means:
            check_rates("means", rates)
        check_count("every", self.every)

    @property
    def arms(self) -> int:
        return len(self.means[0])

    def spells(self, steps: int, rng: np.random.Generator) -> Spells:
        return _spells(np.array(self.means), self.every, steps)


@dataclass(frozen=True, slots=True)
class Seasonal(Bernoulli):
    """The rates rise and fall smoothly between low and high, one arm after the other, once in a period of rounds."""

    arms: int = 3
    period: int = 5000
    low: float = 0.1
    high: float = 0.9

    def __post_init__(self) -> None:
        check_count("arms", self.arms)
        check_count("period", self.period)
        check_rates("low, high", (self.low, self.high))

    def spells(self, steps: int, rng: np.random.Generator) -> Spells:
        turns = np.arange(steps)[:, None] / self.period - np.arange(self.arms) / self.arms
        mean = self.low + (self.high - self.low) * (1 + np.cos(2 * math.pi * turns)) / 2
        return _spells(mean, every=1, steps=steps)


@dataclass(frozen=True, slots=True)
class Mortal(Bernoulli):
    """Arms that come and go: in each round with some probability one retires, and a new one takes its place.

    The rates are drawn from Beta(alpha, beta). The defaults are the instance of
    O. Chapelle, L. Li, "An empirical evaluation of Thompson sampling", NeurIPS 2011; the idea is that of
    D. Chakrabarti et al., "Mortal multi-armed bandits", NeurIPS 2008.
    """

    arms: int = 10
    mortality: float = 1e-3
    alpha: float = 4.0
    beta: float = 4.0

    def __post_init__(self) -> None:
        check_count("arms", self.arms)
        check_rates("mortality", (self.mortality,))
        for name, value in ("alpha", self.alpha), ("beta", self.beta):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}: must be a number above 0, got {value}")

    def spells(self, steps: int, rng: np.random.Generator) -> Spells:
        start = np.concatenate([[0], 1 + np.flatnonzero(rng.random(steps - 1) < self.mortality)])
        fresh = np.eye(self.arms, dtype=bool)[rng.integers(self.arms, size=len(start))]
        fresh[0] = True
        mean = rng.beta(self.alpha, self.beta, fresh.shape)
        for i in range(1, len(start)):
            mean[i, ~fresh[i]] = mean[i - 1, ~fresh[i]]
        return Spells(start, mean, fresh)


def lai_robbins(means: Sequence[float]) -> float:
    """C = Σ (μ* - μ) / kl(μ, μ*) over the arms that are not best, of rates in (0, 1).

    The regret of any policy that is good everywhere grows at least like C ln t. The bound is asymptotic: at the
    horizons of practice good policies lie below it.
    T. L. Lai, H. Robbins, "Asymptotically efficient adaptive allocation rules", Adv. Appl. Math. 6 (1985).
    """
    best = max(means)
    if not all(0 < mean < 1 for mean in means):
        raise ValueError(f"means: must lie inside (0, 1), got {list(means)}")
    worse = [p for p in means if p < best]
    return sum((best - p) / (p * math.log(p / best) + (1 - p) * math.log((1 - p) / (1 - best))) for p in worse)


def _spells(mean: Matrix, every: int, steps: int) -> Spells:
    """Spells of equal length, in which no arm is ever replaced."""
    start = np.arange(0, min(steps, every * len(mean)), every)
    fresh = np.zeros((len(start), mean.shape[1]), dtype=bool)
    return Spells(start, mean[: len(start)], fresh)
