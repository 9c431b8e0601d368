"""Routes that have lived: decisions by the real sampler, rewards of known means, all in a store that forgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from router.answers.service import read_study
from router.answers.study import Study, Versions
from router.call import Batch, Decision, Feedback
from router.learning.credit import Crediting
from router.learning.fitting import fit_of, fitted
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

    def study(self, *, most: int = 100_000, later: float = 0.0) -> Study:
        now = self.clock() + later
        return read_study(self.store, NAME, self.route.settings, Versions(), most=most, now=now)


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
