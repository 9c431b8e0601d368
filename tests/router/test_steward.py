"""What replicas agree on comes into force in each of them, and stays over a restart."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from router.call import Batch, Decision, Feedback
from router.config import Arm, Reward, ThompsonPolicy
from router.config.safety import Canary, ErrorGuardrail, Moment, Schedule, Shadow, Step
from router.errors import NoArmAllowed
from router.learning.counting import count
from router.learning.fitter import Fitter
from router.learning.steward import Steward
from router.metrics import Metrics
from router.route import Route, Routes
from router.safety import canary as canaries
from router.safety.switches import ROUTE, Position, Switch, kind, switch
from router.safety.tally import Tally
from router.stores import Store, StoreError
from router.stores.memory import MemoryStore
from tests.router.bench import p_of
from tests.router.fakes import NOW, FakeClock, FakeLog, FakeUpstream, FlakyStore, call_of, make_route

ARMS = ("a", "b")


class Replica:
    """A process that serves the route "credit" and does what a learner does in each cycle."""

    def __init__(self, store: Store, clock: FakeClock, *, arms: Sequence[str] = ARMS, **settings: Any) -> None:
        self.store = store
        self.clock = clock
        self.routes = Routes()
        self.fitter = Fitter(store, Metrics(CollectorRegistry()), clock)
        self.steward = Steward(store, self.fitter, clock)
        upstreams = {arm: FakeUpstream() for arm in arms}
        built = make_route(self.routes, FakeLog(), upstreams, clock=clock, **settings)
        entered = self.steward.enter(built)
        if built.settings.guardrails or built.settings.canary:
            entered = replace(entered, tally=Tally("credit", arms, entered.watches))
        self.routes.publish(entered.now(entered))

    @property
    def route(self) -> Route:
        return self.routes.current["credit"]

    @property
    def p(self) -> list[float]:
        return p_of(self.route)

    def looks(self) -> list[str]:
        """Commits what was counted, looks, fits; returns the kinds of events that were written."""
        if self.route.tally is not None:
            self.store.commit(Batch(adds=self.route.tally.drain()))
        before = self.store.events("credit")
        self.publishes(self.steward.look(self.routes.current))
        self.refits()
        return [each.kind for each in self.store.events("credit") if each not in before]

    def refits(self) -> None:
        self.publishes(self.fitter.refit(self.routes.current))

    def publishes(self, routes: Iterable[Route]) -> None:
        for known in routes:
            self.routes.publish(self.route.now(known))
            if self.route.tally is not None:
                self.route.tally.watch(known.watches)

    def serves(self, arm: str, calls: int, failed: int = 0) -> None:
        """An arm answers calls, and fails some."""
        assert self.route.tally is not None
        for call in range(calls):
            self.route.tally.count(list(self.route.settings.arms).index(arm), 0.01, self.p, failed=call < failed)

    def decides(self, calls: int) -> list[Decision]:
        """Takes decisions and writes them down."""
        decisions = []
        for _ in range(calls):
            decisions.append(self.route.decide(call_of("credit"))[0])
            self.clock.advance(0.001)
        fits = self.fitter.fits.named_by(decisions)
        self.store.commit(Batch(decisions, fits=fits))
        self.fitter.fits.written(fits)
        return decisions

    def learns(self, decisions: Iterable[Decision], value: float = 1.0) -> None:
        """Is told what decisions earned."""
        told = [Feedback(decision.id, self.clock(), value) for decision in decisions]
        count(self.store, self.routes.current, Batch(), told)


def operator(store: Store, key: str, state: Position, *, version: str = "", now: float = NOW) -> None:
    """Another process writes what an operator says."""
    switch(store, "credit", key, Switch(state, "jane", "a test", now, version))


# -------------------------------------------------------------------------------------------------------- switches


def test_an_arm_that_is_switched_off_gets_nothing_in_any_replica_until_it_is_switched_on():
    store, clock = MemoryStore(), FakeClock()
    one, two = Replica(store, clock), Replica(store, clock)
    operator(store, "b", "off")
    assert one.p == [0.5, 0.5], "until it looks"
    for replica in one, two:
        replica.looks()
        assert replica.p == [1.0, 0.0]
    assert Replica(store, clock).p == [1.0, 0.0], "one that starts later, from its first request on"
    operator(store, "b", "on")
    one.looks()
    assert one.p == [0.5, 0.5]


def test_where_all_arms_are_switched_off_nobody_answers():
    replica = Replica(MemoryStore(), FakeClock())
    for arm in ARMS:
        operator(replica.store, arm, "off")
    replica.looks()
    with pytest.raises(NoArmAllowed):
        replica.route.decide(call_of("credit"))


def test_a_look_that_finds_nothing_new_changes_nothing():
    replica = Replica(MemoryStore(), FakeClock())
    replica.looks()
    before = replica.route
    replica.store.commit(Batch())
    assert replica.steward.look(replica.routes.current) == []
    assert replica.route is before


# ------------------------------------------------------------------------------------------------------ guardrails

ERRORS = {"errors": ErrorGuardrail(action="eject", most=0.05)}


def test_an_arm_that_breaks_a_guardrail_is_ejected_by_one_replica_and_out_in_all():
    store, clock = MemoryStore(), FakeClock()
    one, two = Replica(store, clock, guardrails=ERRORS), Replica(store, clock, guardrails=ERRORS)
    assert one.looks() == two.looks() == [], "from now on they count for it"
    one.serves("b", 100, failed=30)
    two.serves("a", 100)
    two.looks()
    assert one.looks() == ["ejected"]
    assert two.looks() == [], "it is done"
    assert one.p == two.p == [1.0, 0.0]
    (said,) = store.events("credit")
    assert (said.kind, said.arm, said.time) == ("ejected", "b", NOW)
    assert (said.numbers["n"], said.numbers["bad"], said.numbers["limit"]) == (100, 30, 0.05)
    assert said.numbers["low"] > 0.05, "so much is known"


def test_calls_count_for_guardrails_from_the_first_on_though_nobody_has_looked_yet():
    replica = Replica(MemoryStore(), FakeClock(), guardrails=ERRORS)
    replica.serves("b", 100, failed=30)
    assert replica.looks() == ["ejected"]


def test_what_is_said_of_an_arm_is_not_lost_when_the_fit_fails_right_after(monkeypatch: pytest.MonkeyPatch):
    replica = Replica(MemoryStore(), FakeClock(), guardrails=ERRORS)
    replica.serves("b", 100, failed=30)

    def broken(_route: Route) -> Route:
        raise ValueError("sums that no rewards add up to")

    with monkeypatch.context() as patch:
        patch.setattr(replica.fitter, "stand", broken)
        assert replica.looks() == ["ejected"]
    assert replica.looks() == []
    assert replica.p == [1.0, 0.0]


def test_what_was_switched_while_a_reload_went_on_is_in_force_at_the_next_look():
    replica = Replica(MemoryStore(), FakeClock())
    replica.looks()
    entering = replica.steward.enter(
        make_route(Routes(), FakeLog(), {a: FakeUpstream() for a in ARMS}, clock=FakeClock())
    )
    operator(replica.store, "b", "off")
    replica.looks()
    replica.routes.publish(entering.now(entering))
    replica.looks()
    assert replica.p == [1.0, 0.0]


def test_a_look_that_the_store_cut_short_is_taken_again():
    store = FlakyStore()
    replica = Replica(store, FakeClock())
    replica.looks()
    operator(store, "b", "off")

    class Cut(FlakyStore):
        def documents(self, kind: str, **more: Any) -> Any:
            raise StoreError("the disk is full")

    replica.steward._store = Cut(store.inner)
    with pytest.raises(StoreError):
        replica.looks()
    replica.steward._store = store
    replica.looks()
    assert replica.p == [1.0, 0.0]


def test_an_arm_that_is_brought_back_is_not_ejected_for_what_was_before():
    replica = Replica(MemoryStore(), FakeClock(), guardrails=ERRORS)
    replica.looks()
    replica.serves("b", 100, failed=30)
    assert replica.looks() == ["ejected"]
    operator(replica.store, "b", "on", now=NOW + 1.0)
    assert replica.looks() == []
    assert replica.p == [0.5, 0.5]
    replica.serves("b", 100)
    assert replica.looks() == []
    replica.serves("b", 100, failed=60)
    assert replica.looks() == ["ejected"]


def test_a_guardrail_that_freezes_keeps_the_policy_as_it_is():
    freezes = {"errors": ErrorGuardrail(action="freeze", most=0.05)}
    replica = Replica(MemoryStore(), FakeClock(), guardrails=freezes, policy=ThompsonPolicy())
    replica.looks()
    replica.learns(replica.decides(10))
    replica.looks()
    before = replica.route
    replica.serves("b", 100, failed=30)
    assert replica.looks() == ["frozen"]
    replica.learns(replica.decides(50))
    replica.looks()
    assert replica.route.frozen
    assert (replica.route.version, replica.p) == (before.version, p_of(before))


# ---------------------------------------------------------------------------------------------------------- freeze


def frozen() -> Replica:
    """A replica that has learnt from 20 rewards, and then was frozen before anybody decided by what it had learnt."""
    replica = Replica(MemoryStore(), FakeClock(), policy=ThompsonPolicy())
    replica.learns(replica.decides(20))
    replica.looks()
    operator(replica.store, ROUTE, "frozen", version=replica.route.version)
    replica.looks()
    return replica


def restarted(replica: Replica) -> Replica:
    again = Replica(replica.store, replica.clock, policy=ThompsonPolicy())
    again.looks()
    return again


def test_a_frozen_route_keeps_its_version_whatever_is_learnt_and_over_a_restart():
    replica = frozen()
    version, p = replica.route.version, replica.p
    replica.learns(replica.decides(100), 0.0)
    replica.looks()
    for each in replica, restarted(replica):
        assert each.route.frozen
        assert (each.route.version, each.p) == (version, p)
        assert each.route.sums[:, 0].sum() == 20


def test_a_frozen_route_keeps_its_version_over_a_restart_though_no_decision_named_it():
    replica = Replica(MemoryStore(), FakeClock(), policy=ThompsonPolicy())
    early = replica.decides(40)
    replica.learns(early[:20])
    replica.looks()
    version, p = replica.route.version, replica.p
    operator(replica.store, ROUTE, "frozen", version=version)
    replica.looks()
    replica.learns(early[20:], 0.0)
    again = restarted(replica)
    assert (again.route.version, again.p) == (version, p)


def test_a_route_is_frozen_as_it_was_when_it_was_told_though_it_has_learnt_since():
    replica = Replica(MemoryStore(), FakeClock(), policy=ThompsonPolicy())
    early = replica.decides(40)
    replica.learns(early[:20])
    replica.looks()
    version, p = replica.route.version, replica.p
    operator(replica.store, ROUTE, "frozen", version=version)
    replica.learns(early[20:], 0.0)
    replica.refits()  # of a cycle that had begun
    assert replica.route.version != version
    replica.looks()
    for each in replica, restarted(replica):
        assert (each.route.version, each.p) == (version, p)


def test_what_a_policy_of_another_layout_knew_is_not_gone_back_to():
    before = frozen()
    again = Replica(before.store, before.clock, policy=ThompsonPolicy(), reward=Reward(high=2.0))
    again.looks()
    assert again.route.frozen
    assert again.route.sums.tolist() == np.zeros((2, 3)).tolist()


def test_a_route_that_is_thawed_knows_all_that_was_learnt_meanwhile():
    replica = frozen()
    replica.learns(replica.decides(100))
    operator(replica.store, ROUTE, "on")
    replica.looks()
    assert not replica.route.frozen
    assert replica.route.sums[:, 0].sum() == 120


def test_an_arm_of_a_frozen_route_can_still_be_switched_off():
    replica = frozen()
    operator(replica.store, "a", "off")
    replica.looks()
    assert replica.p == [0.0, 1.0]
    assert replica.route.frozen


# ---------------------------------------------------------------------------------------------------------- canary

CANARY = Canary(arm="b", steps=[Step(share=0.1, calls=10), Step(share=0.5, seconds=60)], objective="guardrails")
ROLL_BACK = {"errors": ErrorGuardrail(action="roll_back", most=0.05)}
RUN = canaries.digest(CANARY, ROLL_BACK, repr((Arm(model="b"), Arm(model="a"))))


def canaried(store: Store | None = None, clock: FakeClock | None = None, **more: Any) -> Replica:
    told = {"canary": CANARY, "guardrails": ROLL_BACK, **more}
    return Replica(store or MemoryStore(), clock or FakeClock(), **told)


def test_a_canary_gets_its_first_share_from_the_first_request_on_and_entering_writes_nothing():
    store = MemoryStore()
    before = store.version()
    replica = canaried(store)
    assert replica.p == [0.9, 0.1]
    assert store.version() == before
    assert replica.looks() == ["canary_began"]
    assert replica.p == [0.9, 0.1]


def test_calls_of_a_canary_count_from_the_first_on_where_replicas_have_agreed_when_it_began():
    store, clock = MemoryStore(), FakeClock()
    canaried(store, clock).looks()
    clock.advance(1.0)
    again = canaried(store, clock)
    again.serves("b", 60, failed=20)
    assert again.looks() == ["rolled_back"]


def test_each_step_of_a_canary_is_another_version_of_the_policy_and_the_same_in_all_replicas():
    store, clock = MemoryStore(), FakeClock()
    one, two = canaried(store, clock), canaried(store, clock)
    one.looks(), two.looks()
    first = one.route.version
    assert two.route.version == first
    one.serves("b", 10)
    assert one.looks() == ["stepped"]
    assert two.looks() == []
    assert one.p == two.p == [0.5, 0.5]
    assert one.route.version == two.route.version != first
    assert Replica(store, clock, canary=CANARY, guardrails=ROLL_BACK).p == [0.5, 0.5], "after a restart"


def test_a_bad_canary_is_rolled_back_and_gets_nothing():
    replica = canaried()
    replica.looks()
    replica.serves("b", 60, failed=20)
    assert replica.looks() == ["rolled_back"]
    assert replica.p == [1.0, 0.0]
    said = replica.store.events("credit")[-1]
    assert said.arm == "b"
    assert (said.numbers["calls"], said.numbers["errors.most.bad"]) == (60, 20)
    assert replica.route.decide(call_of("credit"))[0].arm == "a"
    assert canaried(replica.store, replica.clock).p == [1.0, 0.0], "after a restart"


def test_a_canary_with_other_settings_begins_anew():
    replica = canaried()
    replica.looks()
    replica.serves("b", 60, failed=20)
    replica.looks()
    replica.clock.advance(1.0)
    again = canaried(replica.store, replica.clock, canary=msgspec.structs.replace(CANARY, run="2"))
    assert again.p == [0.9, 0.1]
    assert again.looks() == ["canary_began"]


def test_in_a_rolling_reload_the_canary_of_each_configuration_moves_on_and_none_begins_anew():
    """Both replicas look again and again while one of them is reloaded, back and forth: each run begins once."""
    store, clock = MemoryStore(), FakeClock()
    other = msgspec.structs.replace(CANARY, steps=[Step(share=0.25, calls=30), Step(share=0.75, seconds=60)])
    one, two = canaried(store, clock), canaried(store, clock)
    said = one.looks() + two.looks()
    one.serves("b", 10)
    said += one.looks() + two.looks()
    assert one.p == two.p == [0.5, 0.5]

    clock.advance(1.0)
    two = canaried(store, clock, canary=other)
    for _ in range(5):
        said += one.looks() + two.looks()
        clock.advance(1.0)
        two.serves("b", 2)
    assert (one.p, two.p) == ([0.5, 0.5], [0.75, 0.25])
    for flipped in (CANARY, other) * 2:  # and back, and there again
        two = canaried(store, clock, canary=flipped)
        said += two.looks() + one.looks()
        assert two.p == ([0.5, 0.5] if flipped is CANARY else [0.75, 0.25])

    one = canaried(store, clock, canary=other)
    for _ in range(3):
        one.serves("b", 5)
        two.serves("b", 5)
        said += one.looks() + two.looks()
    assert one.p == two.p == [0.25, 0.75]
    assert said == ["canary_began", "stepped", "canary_began", "stepped"]
    assert one.looks() == two.looks() == []


def test_a_canary_that_was_rolled_back_stays_so_when_its_configuration_comes_back():
    replica = canaried()
    replica.looks()
    replica.serves("b", 60, failed=20)
    assert replica.looks() == ["rolled_back"]
    replica.clock.advance(1.0)
    other = msgspec.structs.replace(CANARY, run="2")
    assert canaried(replica.store, replica.clock, canary=other).looks() == ["canary_began"]
    again = canaried(replica.store, replica.clock)
    assert again.p == [1.0, 0.0]
    assert again.looks() == []


def test_a_canary_moves_on_though_the_policy_is_frozen_and_each_look_after_that_changes_nothing():
    replica = canaried(policy=ThompsonPolicy())
    replica.looks()
    operator(replica.store, ROUTE, "frozen", version=replica.route.version)
    replica.looks()
    replica.serves("b", 10)
    assert replica.looks() == ["stepped"]
    assert replica.p == [0.5, 0.5]
    before = replica.route
    assert replica.looks() == []
    assert replica.steward.look(replica.routes.current) == []
    assert replica.route is before


# -------------------------------------------------------------------------------------------------------- schedule


def at(hour: int, **shares: float) -> Moment:
    return Moment(at=datetime(2026, 3, 2, hour, tzinfo=UTC), shares=shares)


def test_a_schedule_moves_the_shares_as_time_goes_by():
    clock = FakeClock(datetime(2026, 3, 2, 7, tzinfo=UTC).timestamp())
    replica = Replica(MemoryStore(), clock, schedule=Schedule(moments=[at(8, a=9, b=1), at(10, a=1, b=1)]))
    versions = []
    for expected in ([0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.5, 0.5]):
        replica.looks()
        assert replica.p == pytest.approx(expected)
        versions.append(replica.route.version)
        clock.advance(3600.0)
    assert len(set(versions)) == 2
    assert replica.route.settings.schedule is not None
    assert replica.route.in_force.schedule is None


def test_what_was_learnt_outlives_a_move_of_the_schedule():
    clock = FakeClock(datetime(2026, 3, 2, 8, tzinfo=UTC).timestamp())
    replica = Replica(MemoryStore(), clock, schedule=Schedule(moments=[at(8, a=1), at(9, b=1)]))
    replica.learns(replica.decides(5))
    replica.looks()
    clock.advance(3600.0)
    replica.looks()
    assert replica.p == [0.0, 1.0]
    assert replica.route.sums[:, 0].tolist() == [5.0, 0.0]


# --------------------------------------------------------------------------------------------------------- shadows


def test_a_shadow_never_answers_not_even_where_nobody_else_is_left():
    replica = Replica(MemoryStore(), FakeClock(), shadows={"b": Shadow()}, policy=ThompsonPolicy())
    assert replica.p == [1.0, 0.0]
    replica.looks()
    assert {replica.route.decide(call_of("credit"))[0].arm for _ in range(50)} == {"a"}
    operator(replica.store, "a", "off")
    replica.looks()
    with pytest.raises(NoArmAllowed):
        replica.route.decide(call_of("credit"))
    operator(replica.store, "b", "on")
    replica.looks()
    with pytest.raises(NoArmAllowed):
        replica.route.decide(call_of("credit"))


# ------------------------------------------------------------------------------------------------------ unreadable


@pytest.mark.parametrize(
    ("documents", "settings"),
    [
        ({kind("credit"): {"b": b"not JSON"}}, {}),
        ({kind("credit"): {"b": b'{"state": "sideways", "who": "", "why": "", "time": 0}'}}, {}),
        ({canaries.kind("credit"): {RUN: b"{}"}}, {"canary": CANARY, "guardrails": ROLL_BACK}),
    ],
)
def test_a_document_that_cannot_be_read_is_logged_and_the_route_goes_on(
    documents: Mapping[str, Mapping[str, bytes]], settings: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    replica = Replica(MemoryStore(), FakeClock(), **settings)
    replica.looks()
    other = make_route(
        replica.routes, FakeLog(), {arm: FakeUpstream() for arm in ARMS}, clock=FakeClock(), name="other"
    )
    before = replica.p
    for of, bodies in documents.items():
        replica.store.put(of, bodies)
    switch(replica.store, "other", "b", Switch("off", "jane", "a test", NOW))
    with caplog.at_level(logging.ERROR):
        said = replica.store.events("credit")
        stand = replica.steward.look(replica.routes.current)
    assert replica.store.events("credit") == said
    assert "what was agreed on about route credit cannot be read, and it goes on as it is" in caplog.text
    assert [route.name for route in stand] == ["other"], "the others are looked after"
    assert stand[0].now(stand[0]).allowed.tolist() == [True, False]
    assert other.allowed.tolist() == [True, True], "a route that is held is the same to its end"
    assert replica.p == before
    assert np.isclose(sum(before), 1.0)
