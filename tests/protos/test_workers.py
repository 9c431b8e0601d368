"""Several real processes under one supervisor, which runs in the test's own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import asynccontextmanager

import httpx
import pytest

from protos.workers.supervisor import Supervisor

pytestmark = pytest.mark.anyio

WORKERS = 2
CONNECTIONS = 24  # so many never all end in one process: once in 2^23 runs


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Crewed:
    """A supervisor, and the port of its workers."""

    def __init__(self, supervisor: Supervisor, address: str) -> None:
        self.supervisor = supervisor
        self.url = f"http://{address}"
        self.asked = 0

    async def told(self):
        """What each worker says: its process, its work, what it knows, what it has tried, and how many are up."""
        outcomes = await self.supervisor.ask("tell")
        said = [outcome.value.decode().rsplit(" ", 3) for outcome in outcomes]
        return [(int(head.partition(" ")[0]), head.partition(" ")[2], *rest) for head, *rest in said]

    async def processes(self):
        return {process for process, *_ in await self.told()}

    async def get(self, path="/"):
        self.asked += 1
        async with httpx.AsyncClient(verify=False, timeout=60) as client:  # a connection of its own
            return (await client.get(self.url + path)).text

    async def counted(self):
        text = await self.get("/metrics")
        (line,) = [line for line in text.splitlines() if line.startswith("asked_total ")]
        return float(line.partition(" ")[2])

    async def all_up(self):
        async with asyncio.timeout(60):
            while [up for *_, up in await self.told()] != [f"{WORKERS}/{WORKERS}"] * WORKERS:
                await asyncio.sleep(0.02)


def supervising(work, started):
    return Supervisor(
        "tests.protos.worker",
        work,
        ["127.0.0.1:0"],
        WORKERS,
        started,
        key=lambda order: order.words[0] if order.what == "know" else None,
        replacing="work",
    )


@asynccontextmanager
async def crewed():
    started = asyncio.get_running_loop().create_future()
    supervisor = supervising("first", lambda addresses, news: started.set_result((addresses, news)))
    running = asyncio.create_task(supervisor.run())
    try:
        await asyncio.wait([started, running], return_when=asyncio.FIRST_COMPLETED)
        (address,), news = started.result()
        assert news == b"up"
        yield Crewed(supervisor, address)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running


async def test_connections_are_dealt_between_workers_that_count_together():
    async with crewed() as crew:
        processes = await crew.processes()
        assert len(processes) == WORKERS
        met = Counter([int((await crew.get()).split()[0]) for _ in range(CONNECTIONS)])
        assert met.keys() == processes
        assert await crew.counted() == crew.asked == CONNECTIONS + 1


async def test_a_new_work_is_for_all_or_for_none():
    async with crewed() as crew:
        (one, other) = await crew.processes()
        outcomes = await crew.supervisor.ask("work", f"not for {one}")
        assert Counter(outcome.message for outcome in outcomes) == {f"not for {one}": 1, "": 1}
        assert {tuple(rest) for _, *rest in await crew.told()} == {("first", "[]", "[]", "2/2")}
        assert not any(outcome.code for outcome in await crew.supervisor.ask("work", "second"))
        together = await asyncio.gather(
            *(crew.supervisor.ask("work", work) for work in ("third", f"not for {other}", "fourth"))
        )
        assert [sum(outcome.code > 0 for outcome in outcomes) for outcomes in together] == [0, 1, 0]
        assert {tuple(rest) for _, *rest in await crew.told()} == {("fourth", "[]", "[]", "2/2")}


async def test_a_successor_has_the_work_of_the_others_and_knows_what_they_know():
    async with crewed() as crew:
        await crew.supervisor.ask("work", "second")
        for value in ("1", "2", "nonsense"):
            await crew.supervisor.ask("know", "a", value)
        await crew.supervisor.ask("know", "b", "nonsense")
        for victim in await crew.processes():
            await crew.counted()  # what a process has counted since the last time is lost with it
            os.kill(victim, signal.SIGKILL)
            while victim in await crew.processes():
                await asyncio.sleep(0.02)
            await crew.all_up()
            assert await crew.get()
        assert {tuple(rest) for _, *rest in await crew.told()} == {("second", "[a=2]", "[]", "2/2")}
        assert await crew.counted() == crew.asked


async def test_a_worker_that_is_stuck_does_not_keep_the_others_figures():
    async with crewed() as crew:
        stuck, _ = await crew.processes()
        stalled = asyncio.create_task(crew.supervisor.ask("stall", str(stuck)))
        await asyncio.sleep(0)
        (outcome,) = await crew.supervisor.ask("scrape")
        assert b"asked_total" in outcome.value
        assert not stalled.done()
        os.kill(stuck, signal.SIGKILL)
        assert len(await stalled) == WORKERS - 1


async def test_work_that_cannot_be_done_ends_the_supervisor(caplog):
    assert not await supervising("impossible", pytest.fail).run()
    assert "a worker ended with status 3 before all were up" in caplog.text
