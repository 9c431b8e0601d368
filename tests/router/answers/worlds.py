"""Routes that have lived: decisions by the real sampler, rewards of known means, all in a store that forgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from router.answers.reading import read_study
from router.answers.study import Study
from router.call import Batch, Decision, Feedback
from router.learning.credit import Crediting
from router.learning.fitting import fit_of, fitted
from router.learning.versions import Versions
from router.route import Route, Routes
from router.stores.memory import MemoryStore
from tests.router.fakes import FakeClock, FakeLog, FakeUpstream, call_of, make_route

NAME = "credit"


@dataclass
class World:
    """A route, its store, and the time."""

    route: Route
    store: MemoryStore
    clock: FakeClock

    @property
    def log(self) -> list[tuple[Decision, dict[str, float]]]:
        """For oracles: each decision, and its outcomes by name."""
        return [
            (decision, {name: outcome.value for name, outcome in outcomes.items()})
            for decision, outcomes in self.store.log(NAME)
        ]

    def study(self, *, most: int = 100_000) -> Study:
        return read_study(self.store, NAME, self.route.settings, Versions(), most=most)


def lived(
    n: int,
    means: Mapping[str, float],
    *,
    seed: int = 7,
    rewarded: float = 1.0,
    batch: int = 100,
    seconds: float = 0.1,
    reward_of: Callable[[np.random.Generator, str, float], float] | None = None,
    metrics_of: Callable[[np.random.Generator, str], Mapping[str, float]] = lambda _rng, _arm: {},
    units: int = 0,
    **settings: Any,
) -> World:
    """A world of n decisions, `seconds` apart, the policy fitted anew after each batch. A request's x is uniform.

    Without `reward_of` a reward is 1 with the probability that `means` has for the arm, else 0.
    """
    rng = np.random.default_rng(seed)
    clock, store = FakeClock(), MemoryStore()
    route = make_route(Routes(), FakeLog(), {arm: FakeUpstream() for arm in means}, clock=clock, name=NAME, **settings)
    for start in range(0, n, batch):
        route = fitted(route, store.sums(NAME), clock())
        crediting = Crediting(route)
        decisions, credits = [], []
        for i in range(start, min(start + batch, n)):
            clock.advance(seconds)
            x = float(rng.random())
            decision, _ = route.decide(call_of(NAME, unit=f"u{i % units}" if units else "", x=(x, 0.0)))
            decisions.append(decision)
            if rng.random() < rewarded:
                arm = decision.arm
                value = float(rng.random() < means[arm]) if reward_of is None else reward_of(rng, arm, x)
                told = Feedback(decision.id, clock(), value, metrics_of(rng, arm))
                credits += crediting.credits(decision, told, {})
        store.commit(Batch(decisions, credits, fits=[fit_of(route, clock())]))
    return World(fitted(route, store.sums(NAME), clock()), store, clock)


def sticky_units(
    rng: np.random.Generator, n: int, units: int, *, deviation: float, noise: float = 0.1, lift: float = 0.0
) -> Study:
    """n rewarded decisions of units that keep to one of two arms, each as likely, and come again in any order.

    What a unit earns keeps near a mean of its own, around 0.5 with this deviation; with the arm "b", `lift` more.
    """
    unit, arm_of = rng.integers(units, size=n), rng.integers(2, size=units)
    worth = 0.5 + deviation * rng.normal(size=units) + lift * arm_of
    arms = arm_of[unit]
    first: dict[int, int] = {}
    everywhere, nowhere = np.ones(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    return Study(
        arms=("a", "b"),
        first_drawn=arms,
        chosen=arms,
        stood_in=nowhere,
        answered=everywhere,
        propensities=np.full(n, 0.5),
        probabilities=np.full((n, 2), 0.5),
        allowed=np.ones((n, 2), dtype=np.bool_),
        rewards=np.clip(worth[unit] + noise * rng.uniform(-1.0, 1.0, n), 0.0, 1.0),
        times=np.arange(n, dtype=np.float64),
        units=np.array([first.setdefault(each, row) for row, each in enumerate(unit.tolist())], dtype=np.intp),
        floors=np.zeros(n),
        contexts=None,
        other_arms=0,
        whole=True,
    )


def until(study: Study, n: int) -> Study:
    """Its first n decisions."""
    told: dict[str, Any] = {each.name: getattr(study, each.name) for each in fields(study)}
    for name, value in told.items():
        if isinstance(value, np.ndarray):
            told[name] = value[:n]
    return Study(**told)
