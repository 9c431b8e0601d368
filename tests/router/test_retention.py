from __future__ import annotations

from dataclasses import replace

from router.call import REWARD, Batch, Decision
from router.config import Arm, Reward
from router.config import Route as Settings
from router.config.learning import Retention as Told
from router.learning.fitting import fit_of
from router.learning.maturity import Maturity
from router.learning.retention import EVERY_SECONDS, LIMIT, Retention
from router.route import Routes
from router.safety.switches import ROUTE, Switch, switch
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


def test_no_decision_goes_before_it_has_counted():
    store = MemoryStore()
    routes = served(
        store, 100, retention=Told(seconds=10, decisions=20), reward=Reward(window_seconds=30.0, default=0.0)
    )
    retention = Retention(store)
    assert retention.forget(routes, NOW) == 0, "nobody has looked yet"
    Maturity(store).mature(routes, NOW)
    assert retention.forget(routes, NOW + EVERY_SECONDS) == 60, "those of the last 40 seconds wait"
    Maturity(store).mature(routes, NOW + EVERY_SECONDS)
    assert retention.forget(routes, NOW + 2 * EVERY_SECONDS) == 40
    assert store.sums("credit")[REWARD, "a"].tolist() == [100.0, 0.0, 0.0]


def test_what_is_in_force_is_kept_though_nobody_has_called_for_long():
    store = MemoryStore()
    routes = served(store, 10, retention=Told(seconds=10))
    route = routes["credit"]
    for version in ("frozen", route.version, "by the way", "the latest"):
        decision = Decision(f"f{version:>31}", "credit", "a", 1.0, NOW - 1, version)
        store.commit(Batch([decision], fits=[fit_of(replace(route, version=version), NOW)]))
    switch(store, "credit", ROUTE, Switch("frozen", "jane", "a test", NOW, "frozen"))
    Retention(store).forget(routes, NOW + 60.0)
    assert kept(store) == 0
    known = [version for version in ("frozen", route.version, "by the way") if store.fit("credit", version)]
    assert known == ["frozen", route.version]


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
