from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from router.call import Batch
from router.config.reward import Range
from router.config.safety import Canary, ErrorGuardrail, Step
from router.safety import canary as canaries
from router.safety.events import event
from router.safety.review import Standing, Subject, review
from router.safety.switches import ROUTE, Switch, decode, frozen, kind, switch, switched_on
from router.safety.tally import Tally
from router.stores import Store
from router.stores.memory import MemoryStore
from router.stores.sqlite import SQLiteStore

ARMS = ("champion", "new")
EVEN = (0.5, 0.5)


def subject(action: str = "eject", **more) -> Subject:
    errors = msgspec.convert({"action": action, "most": 0.05, "watch": "errors"}, ErrorGuardrail)
    return Subject(
        **{
            "name": "credit",
            "arms": ARMS,
            "champion": "champion",
            "reward": Range(),
            "guardrails": {"errors": errors},
            **more,
        }
    )


CANARY = Canary(arm="new", champion="champion", steps=[Step(share=0.5, calls=10)], objective="guardrails")


class Replica:
    """A process that serves a route: counts calls, commits them and looks."""

    def __init__(self, store: Store, of: Subject) -> None:
        self.store = store
        self.subject = of
        self.tally = Tally(of.name, of.arms)
        self.standing: Standing | None = None

    def serves(self, calls: int, errors: int, arm: int = 1) -> None:
        for call in range(calls):
            self.tally.count(arm, 0.01, EVEN, failed=call < errors)

    def looks(self, now: float = 100.0) -> list[str]:
        """Commits, looks, and returns the kinds of events that were written."""
        self.store.commit(Batch(adds=self.tally.drain()))
        before = self.store.events(self.subject.name)
        sums = self.store.sums(self.subject.name)
        self.standing = review(self.store, self.subject, sums, version="policy-7", now=now)
        self.tally.watch(self.standing.watches)
        return [each.kind for each in self.store.events(self.subject.name) if each not in before]

    def on(self) -> list[bool]:
        assert self.standing is not None
        return [bool(on) for on in switched_on(self.standing.switches, ARMS)]


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path: Path):
    store: Store = MemoryStore() if request.param == "memory" else SQLiteStore(str(tmp_path / "s.db"))
    yield store
    store.close()


def replicas(store: Store, of: Subject) -> tuple[Replica, Replica]:
    """Two of them, that have looked once, so that they know what to count."""
    one, two = Replica(store, of), Replica(store, of)
    one.looks()
    two.looks()
    return one, two


def test_a_bad_arm_is_ejected_by_one_replica_and_out_for_all(store: Store):
    one, two = replicas(store, subject())
    one.serves(100, 2)
    one.serves(100, 0, arm=0)
    assert one.looks() == []
    one.serves(50, 15)
    two.serves(50, 15)
    assert one.looks() == [], "not enough alone"
    assert two.looks() == ["ejected"]
    assert one.looks() == [], "it is done"
    assert one.on() == two.on() == [True, False]
    (said,) = store.events("credit")
    assert said.arm == "new"
    assert "errors: above the limit of 0.05" in said.why
    assert (said.numbers["n"], said.numbers["bad"]) == (200, 32)
    assert said.numbers["low"] > said.numbers["limit"] == 0.05


def test_an_arm_that_was_brought_back_is_judged_by_what_it_does_then(store: Store):
    one, two = replicas(store, subject())
    one.serves(100, 50)
    assert one.looks() == ["ejected"]
    switch(store, "credit", "new", Switch("on", "Ada", "mended", 200.0))
    assert one.looks(201.0) == two.looks(201.0) == []
    assert one.on() == [True, True]
    one.serves(100, 1)
    assert one.looks(202.0) == []
    two.serves(100, 50)
    assert two.looks(203.0) == ["ejected"]


def test_the_last_arm_is_not_ejected_but_told_of_once(store: Store):
    one, two = replicas(store, subject())
    switch(store, "credit", "champion", Switch("off", "Ada", "old", 50.0))
    one.serves(100, 50)
    assert one.looks() == ["alert"]
    assert one.looks() == two.looks() == []
    assert one.on() == [False, True]


def test_people_are_told_once(store: Store):
    one, two = replicas(store, subject("alert"))
    one.serves(100, 50)
    assert one.looks() == ["alert"]
    two.serves(100, 50)
    assert two.looks() == []
    assert one.on() == [True, True]


def test_a_frozen_policy_stays_until_an_operator_lets_it_go(store: Store):
    one, two = replicas(store, subject("freeze"))
    one.serves(100, 50)
    assert one.looks() == ["frozen"]
    two.looks()
    assert two.standing is not None
    assert frozen(two.standing.switches) == "policy-7"
    assert two.standing.switches[ROUTE].who == "errors.most"


def test_replicas_agree_on_a_canary(store: Store):
    of = subject("roll_back", canary=CANARY)
    one, two = Replica(store, of), Replica(store, of)
    assert one.looks(10.0) == ["canary_began"]
    assert two.looks(11.0) == []
    assert one.standing == two.standing
    assert one.standing is not None
    assert one.standing.canary is not None
    assert one.standing.canary.since == 10.0
    one.serves(20, 10)
    two.serves(20, 10)
    assert one.looks(12.0) == ["rolled_back"]
    assert two.looks(12.0) == []
    assert two.standing is not None
    assert two.standing.canary is not None
    assert canaries.share(CANARY, two.standing.canary) == 0.0
    assert two.standing.watches == (), "nothing is left to be judged"
    assert Replica(store, of).looks(13.0) == [], "it stays so after a restart"


def test_a_canary_of_another_model_begins_anew(store: Store):
    of = subject("roll_back", canary=CANARY)
    one = Replica(store, of)
    one.looks(10.0)
    one.serves(50, 40)
    assert one.looks(11.0) == ["rolled_back"]
    again = Replica(store, replace(of, served="model-2"))
    assert again.looks(20.0) == ["canary_began"]
    again.serves(2_000, 10)
    assert again.looks(21.0) == ["promoted"]
    assert again.looks(22.0) == []


def test_a_replica_that_was_slower_takes_over_what_the_other_wrote():
    """Another process moves the canary between this one's reading and its writing."""

    class Raced(MemoryStore):
        rival: bytes = b""

        def put(self, kind: str, bodies, **more) -> bool:
            if kind == canaries.kind("credit") and self.rival:
                rival, self.rival = self.rival, b""
                super().put(kind, dict.fromkeys(bodies, rival))
            return super().put(kind, bodies, **more)

    store = Raced()
    of = subject("roll_back", canary=CANARY)
    one = Replica(store, of)
    one.looks(10.0)
    one.serves(50, 40)
    assert one.standing is not None
    assert one.standing.canary is not None
    store.rival = canaries.encode(msgspec.structs.replace(one.standing.canary, outcome="promoted"))
    assert one.looks(11.0) == [], "who was first has said so"
    assert one.standing.canary is not None
    assert one.standing.canary.outcome == "promoted"


def test_a_route_without_guardrails_has_nothing_to_look_at():
    store = MemoryStore()
    one = Replica(store, replace(subject(), guardrails={}))
    assert one.looks() == []
    assert one.standing == Standing({}, None, ())
    assert not decode(store.documents(kind("credit")))


def test_events_sort_by_time_and_the_same_one_has_the_same_id():
    said = [event("r", "alert", why="so", now=now, numbers={"n": 1.0}) for now in (1e9, 1.7e9, 1.7e9 + 0.001, 4e9)]
    assert sorted(said, key=lambda each: each.id) == said
    assert event("r", "alert", why="so", now=1e9, numbers={"n": 1.0}).id == said[0].id
    assert event("r", "alert", why="so", now=1e9, numbers={"n": 2.0}).id != said[0].id
    assert np.unique([len(each.id) for each in said]) == 32
