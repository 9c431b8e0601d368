"""One of several routers, without the others. They are together in tests/e2e/test_router_workers.py."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from protos.workers.line import Outcome
from router.config import Change
from router.errors import ConfigError
from router.metrics import Metrics
from router.stores import StoreError
from router.workers import GREATEST, Work, Workers, judged

pytestmark = pytest.mark.anyio

ADDED_UP = {"croupier_decisions_waiting"}


CHANGE = Change("routes.r.floor: 0.0 -> 0.1", "r")


class FakeRouter:
    """Prepares all but what is marked as wrong."""

    def __init__(self):
        self.said = []
        self.away = False

    async def prepare(self, config):
        (name,) = config.routes
        self.said.append(("prepare", name))
        if name == "wrong":
            raise ConfigError(f"routes.{name}: wrong")

    async def switch(self):
        self.said.append("switch")
        return [CHANGE]

    async def drop(self):
        self.said.append("drop")

    async def look(self):
        self.said.append("look")
        if self.away:
            raise StoreError("the disk is full")


class FakeCrew:
    up, of = 1, 2

    def __init__(self):
        self.asked = []
        self.all_are_up = True

    async def outcomes(self, what, *words):
        self.asked.append((what, *words))
        if not self.all_are_up:
            await asyncio.Event().wait()
        return []


def word(route):
    text = f"routes: {{{route}: {{arms: {{a: {{model: m, target: 'h:1'}}}}}}}}"
    return Work("routes.yaml", text).encode()


@pytest.fixture
def router():
    return FakeRouter()


@pytest.fixture
def workers(router):
    return Workers(FakeCrew(), Path("routes.yaml"), router)  # type: ignore[arg-type]  # a fake


async def test_what_all_can_do_is_done_in_two_steps(router, workers):
    assert await workers.do("try_reload", word("r")) == b""
    assert router.said == [("prepare", "r")]
    assert judged([Outcome(1, value=await workers.do("reload", word("r")))]) == [CHANGE]
    assert router.said == [("prepare", "r"), "switch"]


async def test_what_another_refuses_is_dropped_and_what_this_one_refused_is_not_there_to_drop(router, workers):
    await workers.do("try_reload", word("r"))
    await workers.do("drop_reload", word("r"))
    with pytest.raises(ConfigError, match=r"^routes\.wrong: wrong$"):
        await workers.do("try_reload", word("wrong"))
    await workers.do("drop_reload", word("wrong"))
    with pytest.raises(ConfigError, match="'!' is not a name"):
        await workers.do("try_reload", word("'!'"))
    assert router.said == [("prepare", "r"), "drop", ("prepare", "wrong")]


async def test_one_that_was_not_asked_before_does_both_steps_or_makes_room_for_another(router, workers, monkeypatch):
    await workers.do("reload", word("r"))
    assert router.said == [("prepare", "r"), "switch"]
    raised: list[signal.Signals] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    with pytest.raises(ConfigError):
        await workers.do("reload", word("wrong"))
    assert raised == [signal.SIGINT]


async def test_all_look_at_the_store_and_one_that_is_starting_is_not_waited_for(router, workers, monkeypatch):
    monkeypatch.setattr("router.workers.LOOK_SECONDS", 0.01)
    crew = workers._crew
    for all_are_up in (True, False):
        crew.all_are_up = all_are_up
        await workers.look()
    assert crew.asked == [("look",)] * 2
    assert await workers.do("look") == b""
    router.away = True
    assert await workers.do("look") == b"", "its own learner tries again"
    with pytest.raises(StoreError):
        await workers.look()
    assert router.said == ["look"] * 5
    assert len(crew.asked) == 2


def test_what_each_says_is_told_as_one_answer():
    refused, served = Outcome(1, code=9, message="routes.r: no"), Outcome(1, value=msgspec.json.encode([CHANGE]))
    assert judged([served, served]) == [CHANGE]
    with pytest.raises(ConfigError, match=r"^routes\.r: no$"):
        judged([refused, refused])
    with pytest.raises(ConfigError, match=r"^1 of 2 workers refuse: routes\.r: no$"):
        judged([Outcome(1), refused])
    with pytest.raises(ConfigError, match=r"^1 of 2 workers cannot serve what the others now do, and are replaced: "):
        judged([served, refused])
    with pytest.raises(ConfigError, match="no worker"):
        judged([])


def test_of_every_gauge_it_is_said_how_workers_are_taken_together():
    registry = CollectorRegistry()
    Metrics(registry)
    gauges = {metric.name for metric in registry.collect() if metric.type == "gauge"}
    ours = {name for name in gauges if not name.endswith("_created")}
    assert ours == {name for name in GREATEST if name.startswith("croupier_")} | ADDED_UP
