"""A learner over any store, with one route of two arms, and the clients that report to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from protos.errors import CallError
from router.call import Decision, Feedback
from router.learning.counting import Counted, Verdict
from router.learning.learner import Learner
from router.metrics import Metrics
from router.route import Route, Routes
from router.safety.switches import Position, Switch, switch
from router.stores import Store
from tests.router.fakes import SOON, FakeClock, FakeUpstream, call_of, learning, make_route

Open = Callable[[], Store]
"""Opens the one store of a test, as each replica does."""


class Bench:
    """A learner and the routes that it serves."""

    def __init__(self, store: Store, clock: FakeClock | None = None, *, writer: str = "") -> None:
        self.clock = clock or FakeClock()
        self.store = store
        self.registry = CollectorRegistry()
        self.routes = Routes()
        self.learner = Learner(
            store,
            self.routes,
            Metrics(self.registry),
            self.clock,
            flush_seconds=0.01,
            refresh_seconds=0.0,
            writer=writer,
        )

    def serve(self, name: str = "credit", **settings: Any) -> Route:
        upstreams = {"a": FakeUpstream(), "b": FakeUpstream()}
        return make_route(self.routes, self.learner.journal, upstreams, clock=self.clock, name=name, **settings)

    @property
    def route(self) -> Route:
        return self.routes.current["credit"]

    def decide(self, route: str = "credit") -> Decision:
        """A decision that nobody has recorded yet."""
        return self.routes.current[route].decide(call_of(route))[0]

    def decided(self, route: str = "credit") -> Decision:
        decision = self.decide(route)
        self.learner.journal.record(decision)
        return decision

    def switch(self, key: str, state: Position, *, version: str = "") -> None:
        """What an operator decides about an arm or the route, from another process."""
        switch(self.store, "credit", key, Switch(state, "jane", "a test", self.clock(), version))

    def reward(self, decision: Decision | str, value: float | None = 1.0, **more: Any) -> Feedback:
        id = decision if isinstance(decision, str) else decision.id
        return Feedback(id, self.clock(), value, **more)

    async def ask(self, *feedbacks: Feedback) -> list[Verdict]:
        """What became of each feedback."""
        return await asyncio.wait_for(self.learner.journal.feedback(feedbacks), SOON)

    async def tell(self, feedbacks: Sequence[Feedback]) -> list[Decision | CallError]:
        """The decisions that something was counted for, or why nothing was."""
        verdicts = await self.ask(*feedbacks)
        return [verdict.decision if isinstance(verdict, Counted) else verdict for verdict in verdicts]

    async def earn(self, decision: Decision | str, value: float | None = 1.0, **more: Any) -> Decision | CallError:
        (told,) = await self.tell([self.reward(decision, value, **more)])
        return told

    def sums(self, name: str = "credit") -> dict[tuple[str, str], list[float]]:
        return {key: row.tolist() for key, row in self.store.sums(name).items()}

    def fails_after_now(self) -> Callable[[], bool]:
        """Whether a cycle has failed since this was asked."""
        before = self.metric("croupier_store_errors_total") or 0.0
        return lambda: (self.metric("croupier_store_errors_total") or 0.0) > before

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@asynccontextmanager
async def running(
    store: Store, clock: FakeClock | None = None, *, writer: str = "", **settings: Any
) -> AsyncIterator[Bench]:
    """A bench that serves the route "credit" and learns."""
    bench = Bench(store, clock, writer=writer)
    bench.serve(**settings)
    async with learning(bench.learner):
        yield bench
    bench.learner.close()


def p_of(route: Route) -> list[float]:
    """The probabilities of a route that reads no contexts."""
    p = route.probabilities()
    assert p is not None
    return [float(each) for each in p]


async def until(condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(wait(), SOON)
