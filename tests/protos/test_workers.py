"""Several real processes under one supervisor, which runs in the test's own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from protos.workers import supervisor
from protos.workers.crew import Crew
from protos.workers.line import Line, Message, Order, Outcome, Outcomes, Post
from protos.workers.sockets import anchored, beside
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

    async def replaced(self, victim):
        """Kills a process; returns once another hears what is ordered."""
        os.kill(victim, signal.SIGKILL)
        async with asyncio.timeout(60):
            while victim in (processes := await self.processes()) or len(processes) < WORKERS:
                await asyncio.sleep(0.02)

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


@contextmanager
def sighup(handler: signal.Handlers) -> Iterator[None]:
    """Has SIGHUP do this, whatever it does to whoever runs the tests."""
    before = signal.signal(signal.SIGHUP, handler)
    yield
    signal.signal(signal.SIGHUP, before)


@asynccontextmanager
async def crewed(*, ended_by=signal.SIGTERM):
    started = asyncio.get_running_loop().create_future()
    supervisor = supervising("first", lambda addresses, news: started.set_result((addresses, news)))
    running = asyncio.create_task(supervisor.run())
    try:
        await asyncio.wait([started, running], return_when=asyncio.FIRST_COMPLETED)
        (address,), news = started.result()
        assert news == b"up"
        yield Crewed(supervisor, address)
    finally:
        os.kill(os.getpid(), ended_by)
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
        await asyncio.gather(*(crew.supervisor.ask("know", "b", "nonsense") for _ in range(2)))
        for victim in await crew.processes():
            await crew.counted()  # what a process has counted since the last time is lost with it
            await crew.replaced(victim)
            await crew.all_up()
            assert await crew.get()
        assert [outcome.value for outcome in await crew.supervisor.ask("missed")] == [b"a=2"] * WORKERS
        assert {tuple(rest) for _, *rest in await crew.told()} == {("second", "[a=2]", "[]", "2/2")}
        assert await crew.counted() == crew.asked


async def test_a_successor_is_told_what_is_under_way():
    async with crewed() as crew:
        late = asyncio.create_task(crew.supervisor.ask("know", "a", "late"))
        await asyncio.sleep(0)
        await crew.replaced(next(iter(await crew.processes())))
        assert not late.done()
        await crew.supervisor.ask("release")
        assert [outcome.code for outcome in await late] == [0]
        await crew.all_up()
        assert {tuple(rest) for _, *rest in await crew.told()} == {("first", "[a=late]", "[]", "2/2")}


async def test_the_others_serve_on_while_no_successor_can_be_started(monkeypatch, caplog):
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.0)
    start, failures = asyncio.create_subprocess_exec, [BlockingIOError(11, "not now"), FileNotFoundError(2, "gone")]

    async def fails_first(*command, **options):
        if failures:
            raise failures.pop()
        return await start(*command, **options)

    async with crewed() as crew:
        victim, other = await crew.processes()
        monkeypatch.setattr(asyncio, "create_subprocess_exec", fails_first)
        await crew.replaced(victim)
        assert other in await crew.processes()
        await crew.all_up()
    assert "a worker could not be started ([Errno 11] not now); another takes its place" in caplog.text


async def test_what_a_worker_had_counted_stays_while_it_cannot_be_asked():
    async with crewed() as crew:
        assert await crew.counted() == 1
        await crew.supervisor.ask("spoil")
        assert await crew.counted() == 1


async def test_a_worker_that_is_stuck_does_not_keep_the_others_figures():
    async with crewed() as crew:
        stuck, _ = await crew.processes()
        stalled = asyncio.create_task(crew.supervisor.ask("stall", str(stuck)))
        await asyncio.sleep(0)
        (outcome,) = await crew.supervisor.ask("scrape")
        assert b"asked_total" in outcome.value
        crew.supervisor.asking = {"tell"}
        assert len(await crew.told()) == WORKERS - 1
        assert not stalled.done()
        os.kill(stuck, signal.SIGKILL)
        assert len(await stalled) == WORKERS - 1


async def test_sighup_drains_the_workers():
    with sighup(signal.SIG_DFL):
        async with crewed(ended_by=signal.SIGHUP) as crew:
            assert await crew.get()


async def test_sighup_that_nohup_has_ignored_ends_nothing():
    with sighup(signal.SIG_IGN):
        async with crewed() as crew:
            for process in (os.getpid(), *await crew.processes()):
                os.kill(process, signal.SIGHUP)
            assert len(await crew.told()) == WORKERS


async def test_work_that_cannot_be_done_ends_the_supervisor(caplog):
    assert not await supervising("impossible", pytest.fail).run()
    assert "a worker ended with status 3 before all were up" in caplog.text


async def test_workers_that_cannot_be_started_end_the_supervisor(monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert not await supervising("first", pytest.fail).run()
    assert (
        "a worker could not be started ([Errno 2] No such file or directory: '/nowhere/python') before" in caplog.text
    )


def test_what_a_server_before_left_behind_keeps_no_address_and_one_that_starts_does():
    with ExitStack() as opened:
        with socket.create_server(("127.0.0.1", 0)) as before:
            address = before.getsockname()
            client = opened.enter_context(socket.create_connection(address))
            before.accept()[0].close()  # the first to hang up is who remembers the connection: in TIME_WAIT
            assert client.recv(1) == b""
            client.close()
        bind = "{}:{}".format(*address)
        anchor = opened.enter_context(anchored(bind))
        with pytest.raises(OSError, match="in use") as taken:
            anchored(bind)
        assert taken.value.filename == bind
        for _ in range(WORKERS):
            opened.enter_context(beside(anchor)).listen()
        opened.enter_context(socket.create_connection(address))


def test_an_address_that_nobody_knows_is_named():
    with pytest.raises(OSError, match=r"not known|not supported") as unknown:
        anchored("[::1%nowhere]:0")
    assert unknown.value.filename == "[::1%nowhere]:0"


class Said(Line):
    """A worker's line: what the supervisor says, and what it hears."""

    def __init__(self):
        self.said: asyncio.Queue[Message] = asyncio.Queue()
        self.heard: asyncio.Queue[Any] = asyncio.Queue()

    async def receive(self):
        return await self.said.get()

    def send(self, message):
        self.heard.put_nowait(message)


async def test_a_caller_who_leaves_as_the_answer_comes_leaves_a_worker_that_hears():
    async def do(*_words):
        return b"done"

    line = Said()
    crew = Crew(line, Post("", []))
    await crew.join(do, CollectorRegistry())
    asking = asyncio.create_task(crew.ask("index"))
    asked = await line.heard.get()
    line.said.put_nowait(Outcomes(asked.id, []))  # both in one turn of the loop, this first
    asking.cancel()
    line.said.put_nowait(Order(7, "load"))
    async with asyncio.timeout(10):
        assert await line.heard.get() == Outcome(7, b"done")
