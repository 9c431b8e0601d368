from __future__ import annotations

import numpy as np
import pytest

from router.call import Batch, Credit, Decision, Outcome
from router.config import Arm, EpsilonGreedyPolicy, Route, ThompsonPolicy
from router.config.learning import WarmStart
from router.config.reward import Reward
from router.learning.warm_start import warm_start
from router.stores.memory import MemoryStore

ARMS = {name: Arm(model=name, target="h:1") for name in ("a", "b")}
NEW = Route(arms=ARMS, policy=ThompsonPolicy(), warm_start=WarmStart(route="old"))


def logged(store: MemoryStore, *told: tuple[str, float | None]) -> None:
    """Decisions of the route "old": the arm of each, and its reward if it has one."""
    first = sum(1 for _ in store.log("old"))
    decisions = [Decision(f"{n:032x}", "old", arm, 0.5, float(n), "v") for n, (arm, _) in enumerate(told, first)]
    credits = [
        Credit(Outcome(decision.id, "reward", value, decision.time))
        for decision, (_, value) in zip(decisions, told, strict=True)
        if value is not None
    ]
    assert all(store.commit(Batch(decisions, credits)))


def rows(store: MemoryStore, settings: Route = NEW, layout: str = "counts") -> list[list[float]]:
    return [list(map(float, row)) for row in warm_start(store, "new", settings, settings.build_policy(), layout)]


def test_a_route_begins_with_what_another_has_logged():
    store = MemoryStore()
    logged(store, ("a", 1.0), ("a", 0.0), ("b", 1.0), ("b", None), ("gone", 1.0))
    assert rows(store) == [[2.0, 1.0, 1.0], [1.0, 1.0, 1.0]]


def test_a_log_that_teaches_nothing_is_told(caplog: pytest.LogCaptureFixture):
    store = MemoryStore()
    logged(store, ("a", None))
    assert not np.any(rows(store))
    assert "route new begins with nothing: 'old' has no reward for it" in caplog.text


def test_it_weighs_as_much_as_is_said():
    store = MemoryStore()
    logged(store, ("a", 1.0))
    half = Route(arms=ARMS, policy=ThompsonPolicy(), warm_start=WarmStart(route="old", weight=0.5))
    assert rows(store, half)[0] == [0.5, 0.5, 0.5]


def test_what_is_logged_later_is_not_counted_again_by_any_replica():
    store = MemoryStore()
    logged(store, ("a", 1.0))
    before = rows(store)
    logged(store, ("a", 1.0), ("a", 1.0), ("a", 1.0))
    assert rows(store) == before


def test_another_setting_learns_anew():
    store = MemoryStore()
    logged(store, ("a", 1.0))
    rows(store)
    store.commit(
        Batch([Decision("f" * 32, "older", "b", 1.0, 9.0, "v")], [Credit(Outcome("f" * 32, "reward", 1.0, 9.0))])
    )
    other = Route(arms=ARMS, policy=ThompsonPolicy(), warm_start=WarmStart(route="older"))
    assert rows(store, other) == [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]


def test_settings_that_come_back_find_what_they_were_taught():
    """In a rolling reload both are in force at once; a replica that starts then begins as its peers have."""
    store = MemoryStore()
    logged(store, ("a", 1.0))
    before = rows(store)
    other = Route(arms=ARMS, policy=ThompsonPolicy(), warm_start=WarmStart(route="old", weight=2.0))
    logged(store, ("b", 1.0))
    assert rows(store, other) == [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    assert rows(store) == before == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]


def test_rewards_are_read_in_the_range_of_the_new_route_and_others_are_left_out():
    store = MemoryStore()
    logged(store, ("a", 5.0), ("a", -5.0), ("a", 50.0))
    wide = Route(arms=ARMS, policy=ThompsonPolicy(), reward=Reward(low=-5, high=5), warm_start=WarmStart(route="old"))
    assert rows(store, wide)[0] == [2.0, 1.0, 1.0]


def test_who_is_slower_takes_the_lesson_of_the_faster():
    store = MemoryStore()
    logged(store, ("a", 1.0))

    class Racing(MemoryStore):
        """Has another replica learn, from a longer log, right before this one writes down what it learnt."""

        def put(self, kind, bodies, *, expected=None, events=()):
            if not store.documents(kind):
                logged(store, ("a", 1.0), ("a", 1.0))
                rows(store)
            return store.put(kind, bodies, expected=expected, events=events)

    racing = Racing()
    racing.log, racing.documents = store.log, store.documents  # type: ignore[method-assign]
    assert rows(racing) == rows(store) == [[3.0, 3.0, 3.0], [0.0, 0.0, 0.0]]


def test_nothing_is_read_where_nothing_is_asked():
    alone = Route(arms=ARMS, policy=EpsilonGreedyPolicy())
    assert not np.any(rows(MemoryStore(), alone))
