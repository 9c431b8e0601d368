from __future__ import annotations

from router.call import Batch, Decision
from router.config import Arm
from router.config import Route as Settings
from router.config.learning import Retention as Told
from router.learning.retention import EVERY_SECONDS, LIMIT, Retention
from router.route import Routes
from router.stores import DECISIONS
from router.stores.memory import MemoryStore
from tests.router.fakes import NOW, FakeClock, FakeLog, FakeUpstream, make_route

ARMS = {"a": Arm(model="m", target="h:1")}


def kept(store: MemoryStore) -> int:
    return sum(1 for _ in store.log("credit"))


def served(store: MemoryStore, decisions: int, **settings):
    """A route with so many decisions, one a second, the last one now."""
    routes = Routes()
    make_route(routes, FakeLog(), {"a": FakeUpstream()}, clock=FakeClock(), **settings)
    store.commit(
        Batch([Decision(f"{n:032x}", "credit", "a", 1.0, NOW - decisions + n + 1, "v") for n in range(decisions)])
    )
    return routes.current


def test_old_decisions_are_forgotten_and_sums_are_not():
    store = MemoryStore()
    routes = served(store, 100, retention=Told(seconds=10))
    assert Retention(store).forget(routes, NOW) == 89
    assert kept(store) == 11
    assert store.sums("credit")[DECISIONS, "a"].tolist() == [100.0]


def test_the_oldest_beyond_a_number_are_forgotten():
    store = MemoryStore()
    routes = served(store, 100, retention=Told(decisions=30))
    assert Retention(store).forget(routes, NOW) == 70
    assert kept(store) == 30


def test_it_goes_step_by_step_and_then_waits():
    store = MemoryStore()
    routes = served(store, LIMIT + 500, retention=Told(decisions=100))
    retention = Retention(store)
    assert retention.is_due(routes, NOW)
    assert retention.forget(routes, NOW) == LIMIT
    assert retention.is_due(routes, NOW), "there is more"
    assert retention.forget(routes, NOW) == 400
    assert not retention.is_due(routes, NOW)
    assert retention.is_due(routes, NOW + EVERY_SECONDS)


def test_without_a_word_nothing_is_forgotten():
    store = MemoryStore()
    routes = served(store, 10)
    retention = Retention(store)
    assert not retention.is_due(routes, NOW)
    assert retention.forget(routes, NOW) == 0
    assert kept(store) == 10


def test_a_retention_of_nothing_is_refused():
    for wrong in {}, {"seconds": 0.0}, {"decisions": 0}:
        try:
            Told(**wrong)
        except ValueError:
            continue
        raise AssertionError(wrong)
    assert Settings(arms=ARMS, retention=Told(seconds=1)).retention == Told(seconds=1)
