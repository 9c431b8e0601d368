from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import pytest
from msgspec.structs import replace

from router.call import REWARD, Batch, Decision, Feedback, Outcome
from router.config import Failover, Reward, ThompsonPolicy
from router.errors import AlreadyRewarded, TooLate
from router.learning import maturity as module
from router.learning.counting import Counted, count
from router.learning.fitting import fitted, policy_layout
from router.learning.maturity import DOCUMENTS, GRACE_SECONDS, Maturity
from router.route import Route, Routes
from router.stores import Store
from router.stores.memory import MemoryStore
from tests.router.bench import Open, running, until
from tests.router.fakes import NOW, FakeClock, FakeLog, FakeUpstream, FlakyStore, make_route

pytestmark = pytest.mark.anyio

WINDOW = 60.0
OVER = WINDOW + GRACE_SECONDS
SILENT = Reward(window_seconds=WINDOW, default=0.25)


def served(reward: Reward = SILENT, **told: Any) -> dict[str, Route]:
    upstreams = {"a": FakeUpstream(), "b": FakeUpstream()}
    route = make_route(Routes(), FakeLog(), upstreams, clock=FakeClock(), reward=reward, **told)
    return {route.name: fitted(route, {}, NOW)}


def taken(routes: Mapping[str, Route], *seconds: float, arm: str = "a") -> list[Decision]:
    """Decisions that were taken so many seconds after NOW."""
    version = routes["credit"].version
    return [
        Decision(f"{int((NOW + each) * 1000):012x}{k:020x}", "credit", arm, 0.5, NOW + each, version, "u")
        for k, each in enumerate(seconds)
    ]


def rewards(store: Store, decisions: Sequence[Decision]) -> list[float | None]:
    outcomes = store.outcomes([each.id for each in decisions])
    return [outcomes[each.id][REWARD].value if each.id in outcomes else None for each in decisions]


def matured(store: Store, routes: Mapping[str, Route], now: float) -> Maturity:
    maturity = Maturity(store)
    while maturity.is_due(routes, now):
        maturity.mature(routes, now)
    return maturity


@pytest.fixture
def store(open_store: Open) -> Iterator[Store]:
    with closing(open_store()) as store:
        yield store


def test_silence_is_given_its_reward_when_the_window_has_ended_and_not_before(store: Store):
    routes = served(policy=ThompsonPolicy())
    decisions = taken(routes, 0.0, 1.0, 2.0)
    store.commit(Batch(decisions))
    count(store, routes, Batch(), [Feedback(decisions[1].id, NOW + 10, 1.0)])
    matured(store, routes, NOW + OVER - 0.5)
    assert rewards(store, decisions) == [None, 1.0, None]
    matured(store, routes, NOW + OVER + 1.0)
    assert rewards(store, decisions) == [0.25, 1.0, None]
    matured(store, routes, NOW + OVER + 100.0)
    assert rewards(store, decisions) == [0.25, 1.0, 0.25]
    assert store.sums("credit")[REWARD, "a"].tolist() == [3.0, 1.5, 1.125]
    assert store.sums("credit")[policy_layout(routes["credit"]), "a"].tolist() == [3.0, 1.5, 1.125]


def test_two_replicas_that_walk_at_once_give_each_default_once(store: Store):
    routes = served()
    decisions = taken(routes, *range(10))
    store.commit(Batch(decisions))
    one, other = Maturity(store), Maturity(store)
    now = NOW + 10 + OVER

    class Between(MemoryStore):
        """The other walks over the same decisions before this one commits."""

        def __getattribute__(self, name: str) -> Any:
            if name == "commit":
                other.mature(routes, now)
            return getattr(store, name)

    one._store = Between()
    assert one.mature(routes, now) == 0
    assert store.sums("credit")[REWARD, "a"].tolist() == [10.0, 2.5, 0.625]


def test_the_work_is_bounded_goes_on_where_it_was_and_is_not_begun_anew(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST", 4)
    routes = served()
    decisions = taken(routes, *range(10))
    store.commit(Batch(decisions))
    now = NOW + 10 + OVER
    first = Maturity(store)
    assert first.mature(routes, now) == 4
    second = Maturity(store)  # as after a restart
    assert second.mature(routes, now) == 4
    assert first.mature(routes, now) == 2, "and it hears of what the other one did"
    assert not first.is_due(routes, now)
    assert rewards(store, decisions) == [0.25] * 10


def test_until_the_next_is_due_nothing_is_read(store: Store):
    routes = served()
    store.commit(Batch(taken(routes, 0.0, 50.0)))
    maturity = matured(store, routes, NOW + OVER)
    assert not maturity.is_due(routes, NOW + OVER + 49.0)
    assert maturity.is_due(routes, NOW + OVER + 50.0)
    assert not Maturity(store).is_due(served(Reward(window_seconds=WINDOW)), NOW), "without a default never"
    shorter = served(Reward(window_seconds=1.0, default=0.0))
    assert maturity.is_due(shorter, NOW + OVER), "a reload may shorten the window"


def test_what_is_committed_when_its_window_has_ended_gets_its_default_with_the_commit(store: Store):
    routes = served()
    early, late, open = taken(routes, 0.0, 1.0, 500.0)
    matured(store, routes, NOW + 400.0)
    store.commit(Batch([early]))
    now = NOW + 510.0
    defaults = module.overdue(routes, [late, open], now)
    verdicts = count(store, routes, Batch([late, open], defaults), [Feedback(open.id, now, 1.0)])
    assert len(verdicts) == 1
    assert rewards(store, [late, open]) == [0.25, 1.0]


def test_nobody_answered_so_nothing_could_be_earned(store: Store):
    routes = served(failover=Failover(attempts=1, learn="answered"))
    (decision,) = taken(routes, 0.0)
    unanswered = replace(decision, failed=("b", "a"))
    store.commit(Batch([unanswered]))
    matured(store, routes, NOW + OVER)
    assert rewards(store, [unanswered]) == [None]


@pytest.mark.parametrize(("corrections", "late"), [("refuse", AlreadyRewarded), ("replace", None)])
def test_after_the_default_a_reward_is_refused_or_takes_its_place(store: Store, corrections: Any, late: type | None):
    routes = served(Reward(window_seconds=WINDOW, default=0.25, corrections=corrections))
    decisions = taken(routes, 0.0)
    store.commit(Batch(decisions))
    now = NOW + OVER
    matured(store, routes, now)
    (verdict,) = count(store, routes, Batch(), [Feedback(decisions[0].id, now, 1.0)])
    assert isinstance(verdict, late or Counted)
    value = 0.25 if late else 1.0
    assert store.sums("credit")[REWARD, "a"].tolist() == [1.0, value, value**2]


def test_between_the_windows_end_and_its_default_a_reward_is_too_late(store: Store):
    routes = served()
    decisions = taken(routes, 0.0)
    store.commit(Batch(decisions))
    (verdict,) = count(store, routes, Batch(), [Feedback(decisions[0].id, NOW + WINDOW + 1, 1.0)])
    assert isinstance(verdict, TooLate)
    assert "60 seconds" in verdict.message


async def test_a_learner_gives_defaults_behind_the_requests(open_store: Open):
    async with running(open_store(), reward=SILENT) as bench:
        decision = bench.decided()
        await until(lambda: bool(bench.store.find([decision.id])))
        bench.clock.advance(OVER + 1)
        await until(lambda: bool(bench.store.outcomes([decision.id])))
        kept = bench.store.outcomes([decision.id])[decision.id]
        assert kept == {REWARD: Outcome(decision.id, REWARD, 0.25, NOW + OVER + 1)}
        await until(lambda: bench.metric("croupier_default_rewards_total") == 1)
        assert (bench.metric("croupier_rewards_total", route="credit", arm=decision.arm) or 0) == 0
        assert set(bench.store.documents(DOCUMENTS)) == {"credit"}


async def test_after_an_outage_longer_than_the_window_all_is_as_if_the_store_had_been_there():
    store = FlakyStore()
    async with running(store, reward=SILENT) as bench:
        store.down = True
        decisions = [bench.decided() for _ in range(3)]
        bench.clock.advance(10 * OVER)
        later = bench.decided()
        await asyncio.sleep(0)
        store.down = False
        await until(lambda: len(store.committed) == 4)
        assert rewards(store, [*decisions, later]) == [0.25] * 3 + [None]
