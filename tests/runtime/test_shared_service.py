"""One of several processes that serve the same models, as its supervisor has it do what was done by the others."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from protos.errors import Unavailable
from protos.workers.crew import Crew
from protos.workers.line import Line, Order, Outcome, Post
from runtime.shared_service import SharedService
from tests.runtime.test_engine import Loader, answer, keep, running
from tests.runtime.test_ensemble import ensemble


class Told:
    """The line to a supervisor that says what the test has it say, and remembers what it hears."""

    def __init__(self) -> None:
        self.orders: asyncio.Queue[Order] = asyncio.Queue()
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.receive = self.orders.get
        self.send = self.outcomes.put_nowait


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
