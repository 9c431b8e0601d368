from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bandits import HalfLife
from router.call import REWARD, Add, Batch
from router.config import Reward, ThompsonPolicy
from router.config.learning import Retention as Told
from router.config.safety import ErrorGuardrail
from router.learning.credit import metric_layout
from router.learning.fitting import fitted, learnt, policy_layout
from router.learning.lift import lift_layout
from router.learning.retention import EVERY_SECONDS, Retention
from router.learning.unread import LEAST_SECONDS, documents_of, forget_unread
from router.route import Route, Routes
from router.safety.guardrails import standing
from router.stores import DECISIONS, Store
from tests.router.bench import Open
from tests.router.fakes import NOW, FakeClock, FakeLog, FakeUpstream, make_route

KEPT = 30 * 86_400.0
EVERYBODYS = {DECISIONS, REWARD, metric_layout("pnl"), "shadow::0.0"}


@pytest.fixture
def store(open_store: Open) -> Iterator[Store]:
    with closing(open_store()) as store:
        yield store


def served(**told: Any) -> Route:
    told = {"policy": ThompsonPolicy(), "retention": Told(seconds=KEPT), **told}
    return make_route(Routes(), FakeLog(), {"a": FakeUpstream(), "b": FakeUpstream()}, clock=FakeClock(), **told)


def adds(store: Store, layouts: Iterable[str]) -> None:
    store.commit(Batch(adds=[Add("credit", layout, "a", np.ones(3)) for layout in layouts]))


def layouts(store: Store) -> set[str]:
    return {layout for layout, _ in store.sums("credit")}


def forget(store: Store, route: Route, now: float) -> None:
    forget_unread(store, route, now, after=KEPT)


def read_by(route: Route) -> set[str]:
    low, high = route.settings.reward.low, route.settings.reward.high
    return {policy_layout(route), lift_layout(("a", "b"), low, high), lift_layout(("a", "gone"), low, high)}


def test_what_another_configuration_asked_for_is_forgotten_when_nobody_has_read_it_for_long(store: Store):
    before, after = served(), served(reward=Reward(high=2.0))
    adds(store, EVERYBODYS | read_by(before) | read_by(after))
    forget(store, after, NOW)
    forget(store, after, NOW + KEPT - 1)
    assert layouts(store) == EVERYBODYS | read_by(before) | read_by(after)
    forget(store, after, NOW + KEPT)
    assert layouts(store) == EVERYBODYS | read_by(after)
    assert store.documents(documents_of("credit")) == {}


def test_not_while_a_replica_still_runs_by_it(store: Store):
    older, newer = served(), served(reward=Reward(high=2.0))
    everything = read_by(older) | read_by(newer)
    adds(store, everything)
    for day in range(100):
        forget(store, newer, NOW + day * 86_400)
        forget(store, older, NOW + day * 86_400 + 60)
    assert layouts(store) == everything
    last = NOW + 99 * 86_400 + 60
    forget(store, newer, last + 60)
    forget(store, newer, last + KEPT)
    assert layouts(store) == everything, "it is unread since then"
    forget(store, newer, last + 60 + KEPT)
    assert layouts(store) == read_by(newer)


def test_a_configuration_that_is_rolled_back_finds_what_it_had_learnt(store: Store):
    old, new = served(), served(reward=Reward(high=2.0))
    adds(store, [policy_layout(old)])
    forget_unread(store, new, NOW, after=1.0)
    forget_unread(store, new, NOW + LEAST_SECONDS - 1, after=1.0)
    forget_unread(store, old, NOW + LEAST_SECONDS, after=1.0)
    assert fitted(old, store.sums("credit"), NOW).sums.tolist() == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]


def test_what_is_counted_for_a_guardrail_is_kept_while_it_is_watched(store: Store):
    errors = {"errors": ErrorGuardrail(action="eject", most=0.05, times=2.0)}
    brought_back = standing(errors, ("a", "b"), "a", Reward(), {"b": NOW})
    first = standing(errors, ("a", "b"), "a", Reward(), {})
    now = {layout for watch in brought_back for layout in watch.layouts()}
    gone = {layout for watch in first for layout in watch.layouts()} - now
    route = replace(served(), watches=tuple(brought_back))
    adds(store, now | gone)
    assert gone
    for days in (0, 1):
        forget(store, route, NOW + days * KEPT)
    assert layouts(store) == now


def test_eras_that_count_nothing_are_forgotten_at_once_and_nothing_is_unlearnt(store: Store):
    route = served(half_life_seconds=3600.0)
    half_life = HalfLife(3600.0)
    present = half_life.era(NOW)
    eras = {f"{policy_layout(route)}@{era}" for era in range(present - 20, present + 2)}
    other = {f"{policy_layout(served(half_life_seconds=60.0))}@{half_life.era(NOW)}"}
    adds(store, eras | other | EVERYBODYS)
    before = learnt(route, store.sums("credit"), NOW)
    forget(store, route, NOW)
    kept = {int(layout.rpartition("@")[2]) for layout in layouts(store) & eras}
    assert kept == set(range(half_life.oldest(NOW) - 1, present + 2))
    assert layouts(store) - eras == other | EVERYBODYS
    np.testing.assert_array_equal(learnt(route, store.sums("credit"), NOW), before)


def test_retention_forgets_them_in_its_turn_where_it_is_asked_for(store: Store):
    old, route = served(), served(reward=Reward(high=2.0))
    adds(store, [policy_layout(old)])
    retention, lasting = Retention(store), Retention(store)
    for now in (NOW, NOW + EVERY_SECONDS, NOW + KEPT):
        lasting.forget({"credit": served(reward=Reward(high=2.0), retention=None)}, now)
        assert layouts(store) == {policy_layout(old)}
    for now in (NOW, NOW + EVERY_SECONDS, NOW + KEPT):
        retention.forget({"credit": route}, now)
    assert layouts(store) == set()
