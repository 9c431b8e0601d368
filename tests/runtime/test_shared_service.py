"""One of several processes that serve the same models, as its supervisor has it do what was done by the others."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from protos.errors import FailedPrecondition, Unavailable
from protos.workers.crew import Crew
from protos.workers.line import Line, Order, Outcome, Outcomes, Post
from runtime import shared_service
from runtime.shared_service import Loaded, SharedService
from tests.runtime.test_engine import Loader, answer, keep, running
from tests.runtime.test_ensemble import ensemble


class Told:
    """The line to a supervisor that says what the test has it say, and remembers what it hears.

    What is asked of all is answered by others, with `answers`.
    """

    def __init__(self) -> None:
        self.orders: asyncio.Queue[Order | Outcomes] = asyncio.Queue()
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.answers: dict[str, list[bytes]] = {}
        self.receive = self.orders.get

    def send(self, message: Order | Outcome) -> None:
        if isinstance(message, Outcome):
            self.outcomes.put_nowait(message)
        else:
            self.asked.put_nowait(message.what)
            answers = [Outcome(message.id, each) for each in self.answers.get(message.what, [])]
            self.orders.put_nowait(Outcomes(message.id, answers))


def successor(engine, *journal):
    """A process that comes after this was ordered, and its line."""
    line = Told()
    orders = [Order(number, what, list(words), changes=True) for number, (what, *words) in enumerate(journal)]
    crew = Crew(cast(Line, line), Post("", [], orders, late=True))
    return SharedService(engine, "m", crew), line


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def serving(tmp_path, loader):
    """Starts an engine with "desk", which is made of "a" and "b"."""
    keep(tmp_path, "a", 2)
    keep(tmp_path, "b", 4)
    ensemble(tmp_path, members={"a": 1, "b": 1})
    return lambda: running(tmp_path, loader)


async def joined(service, loading=None):
    await asyncio.wait_for(service.join(CollectorRegistry(), loading), 60)


@pytest.mark.parametrize("at_start", [True, False])
def test_what_was_unloaded_stays_so_though_what_is_made_of_it_was_loaded_before(serving, at_start):
    async def scenario():
        async with serving() as engine:
            service, _ = successor(engine, *([] if at_start else [("load", "desk")]), ("unload", "b"))
            await joined(service, await engine.start_loading() if at_start else None)
            with pytest.raises(Unavailable, match="'b', which it is made of, is not loaded"):
                await answer(engine, "desk")
            assert await answer(engine, "a") == 2

    asyncio.run(scenario())


def test_what_was_unloaded_is_loaded_where_what_is_made_of_it_was_loaded_later(serving):
    async def scenario():
        async with serving() as engine:
            service, _ = successor(engine, ("unload", "b"), ("load", "desk"))
            await joined(service, await engine.start_loading())
            assert await answer(engine, "desk") == 3

    asyncio.run(scenario())


def test_what_is_ordered_now_is_done_after_what_was_ordered_before(serving, loader):
    loader.gate.clear()

    async def scenario():
        async with serving() as engine:
            service, line = successor(engine, ("load", "desk"), ("unload", "a"), ("load", "b"))
            joining = asyncio.create_task(joined(service))
            await asyncio.to_thread(loader.entered.acquire)
            line.orders.put_nowait(Order(7, "unload", ["b"], changes=True))
            line.orders.put_nowait(Order(8, "index"))
            assert (await line.outcomes.get()).id == 8  # which waits for nothing
            loader.gate.set()
            await joining
            assert await asyncio.wait_for(line.outcomes.get(), 60) == Outcome(7)
            assert list(engine.all_served()) == [("desk", "")]

    asyncio.run(scenario())


def loaded(*models, serves=True):
    return [msgspec.json.encode(Loaded(serves, each)) for each in models]


def own(engine):
    return {name: {version: served.fingerprint} for (name, version), served in engine.all_served().items()}


HELD_BACK = "runtime_workers_held_back"


@pytest.mark.parametrize("change", [{"a": {"": "other"}}, {"gone": {"": "other"}}, {"a": {"": "other", "2": "more"}}])
def test_who_loaded_something_else_than_the_others_serve_is_held_back_until_it_did_not(
    serving, monkeypatch, caplog, change
):
    monkeypatch.setattr(shared_service, "AGAIN", 0)

    async def scenario():
        async with serving() as engine:
            service, line = successor(engine)
            registry = CollectorRegistry()
            loading = await engine.start_loading()
            await loading
            line.answers["loaded"] = loaded(own(engine) | change)
            joining = asyncio.create_task(service.join(registry, loading))
            for _ in range(3):
                assert await asyncio.wait_for(line.asked.get(), 60) == "loaded"
            assert not joining.done()
            assert registry.get_sample_value(HELD_BACK) == 1
            line.orders.put_nowait(Order(7, "index"))
            assert await asyncio.wait_for(line.outcomes.get(), 60) == Outcome(7)  # nothing: it serves nobody
            line.orders.put_nowait(Order(8, "loaded"))
            told = await asyncio.wait_for(line.outcomes.get(), 60)
            assert told.value == loaded(own(engine), serves=False)[0]
            line.answers["loaded"] = loaded(own(engine) | change, own(engine), {}, serves=True)
            await asyncio.wait_for(joining, 60)
            assert registry.get_sample_value(HELD_BACK) == 0

    asyncio.run(scenario())
    (said,) = caplog.messages
    assert f"takes no connections, as it has not loaded what the others serve of {next(iter(change))!r}:" in said


def test_nobody_is_held_back_where_no_other_serves_any_more(serving, monkeypatch, caplog):
    monkeypatch.setattr(shared_service, "AGAIN", 0)

    async def scenario():
        async with serving() as engine:
            service, line = successor(engine)
            line.answers["loaded"] = loaded({"a": {"": "other"}})
            joining = asyncio.create_task(joined(service, await engine.start_loading()))
            for _ in range(2):
                await asyncio.wait_for(line.asked.get(), 60)
            line.answers["loaded"] = loaded({"a": {"": "another"}}, serves=False)
            await joining

    asyncio.run(scenario())
    assert caplog.messages[1:] == [
        "no other process serves any more: what is on the disk now is served, loaded before or not"
    ]


def test_a_load_in_which_files_changed_is_not_acknowledged_and_the_index_says_so(serving):
    async def scenario():
        async with serving() as engine:
            service, line = successor(engine)
            await joined(service, await engine.start_loading())
            line.answers = {"load": [b"1", b"1"], "load_as": [b"1", b"2"]}
            await service.load("a")
            with pytest.raises(FailedPrecondition, match="'a': its files changed, and not all processes have loaded"):
                await service.load_as("a", "{}")
            line.answers = {"index": [await service.do("index")], "loaded": loaded(own(engine), own(engine))}
            assert not any(each.reason for each in (await service.index(ready=True)).models)
            line.answers["loaded"] = [*loaded(own(engine), own(engine) | {"a": {"": "other"}}), b""]
            reasons = {each.name: each.reason for each in (await service.index(ready=True)).models}
            assert reasons["a"].startswith("its files changed")
            assert reasons["b"] == reasons["desk"] == ""
            line.answers["loaded"] = loaded(own(engine), own(engine) | {"a": own(engine)["a"] | {"2": "not here yet"}})
            assert not any(each.reason for each in (await service.index(ready=True)).models)

    asyncio.run(scenario())
