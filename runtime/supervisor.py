"""Several processes that serve the same models on the same ports: started, kept alive, spoken with, drained.

Each worker has listening sockets of its own, between which the kernel deals connections (SO_REUSEPORT). One that dies
takes its sockets with it, so that new connections go to the others while its successor loads.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from protos.serve import DRAIN_SECONDS
from runtime.line import AllUp, Line, Order, Outcome, Outcomes, Up
from runtime.post import Post
from runtime.process import Started
from runtime.scrapes import Scraped
from runtime.server_settings import ServerSettings

CHANGES = {"load", "load_as", "unload"}
GRACE = 5.0  # seconds beyond those of draining, after which a worker is killed
SHORT_LIFE = 10.0  # seconds; a worker that lived less has a successor only after a pause
LONGEST_PAUSE = 30.0

_log = logging.getLogger(__name__)


class _Worker:
    """A worker process, and the line to it."""

    def __init__(self, process: Process, line: Line) -> None:
        self.process = process
        self.line = line
        self.scraped = b""  # what it last said it had counted
        self.is_up = False


class _Question:
    """What a worker asked of all, and the answers so far."""

    def __init__(self, order: Order, asker: _Worker, asked: set[_Worker], before: Order | None) -> None:
        self.order = order
        self.before = before  # the change of this model before this one
        self.asker = asker
        self.awaited = asked
        self.outcomes: list[Outcome] = []


class Supervisor:
    """Keeps `settings.parallel_workers` processes serving `models`. `started` is told when all of them do."""

    def __init__(self, models: Path, settings: ServerSettings, started: Callable[[Started], None]) -> None:
        self._models = models
        self._settings = settings
        self._started = started
        self._workers: set[_Worker] = set()
        self._all_up = False
        self._journal: dict[str, Order] = {}  # the last change of each model
        self._questions: dict[int, _Question] = {}
        self._asked = 0
        self._gone = Scraped()
        self._stop = asyncio.Event()
        self._failed = False

    async def run(self) -> bool:
        """Serves until SIGTERM or SIGINT, then drains all workers. False if they could not even start.

        Raises OSError, with the address as its file name, when one cannot be bound.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._anchors = [_bound(bind) for bind, _ in self._settings.listeners()]
        tending = [asyncio.create_task(self._tend()) for _ in range(self._settings.parallel_workers)]
        for task in tending:
            task.add_done_callback(lambda _ended: self._stop.set())
        await self._stop.wait()
        for worker in self._workers:
            _signal(worker, signal.SIGTERM)
        await asyncio.wait(tending, timeout=DRAIN_SECONDS + GRACE)
        for worker in self._workers:
            _signal(worker, signal.SIGKILL)
        for anchor in self._anchors:
            anchor.close()
        await asyncio.gather(*tending)
        return not self._failed

    async def _tend(self) -> None:
        """Keeps one worker alive, and its successors."""
        loop, pause = asyncio.get_running_loop(), 0.5
        while not self._stop.is_set():
            began = loop.time()
            worker = await self._begin()
            await self._hear(worker)
            status = await worker.process.wait()
            self._lose(worker)
            if self._stop.is_set():
                return
            if not self._all_up:
                _log.error("a worker ended with status %s before all were up", status)
                self._failed = True
                self._stop.set()
                return
            _log.error("a worker ended with status %s; another takes its place", status)
            pause = min(2 * pause, LONGEST_PAUSE) if loop.time() - began < SHORT_LIFE else 0.5
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    async def _begin(self) -> _Worker:
        sockets = [_beside(anchor) for anchor in self._anchors]
        ours, theirs = socket.socketpair()
        inherited = [each.fileno() for each in (*sockets, theirs)]
        post = Post(
            str(self._models), self._settings, inherited[:-1], inherited[-1], list(self._journal.values()), self._all_up
        )
        command = [sys.executable, "-m", "runtime.post", msgspec.json.encode(post).decode()]
        process = await asyncio.create_subprocess_exec(*command, pass_fds=inherited)
        for each in (*sockets, theirs):
            each.close()
        worker = _Worker(process, await Line.over(ours))
        self._workers.add(worker)
        if self._stop.is_set():  # it was not there yet when the others were told
            _signal(worker, signal.SIGTERM)
        return worker

    async def _hear(self, worker: _Worker) -> None:
        while (message := await worker.line.receive()) is not None:
            match message:
                case Order():
                    self._ask(message, worker)
                case Outcome():
                    self._answer(message, worker)
                case Up():
                    self._count_in(message, worker)
                case _:
                    raise AssertionError(f"a worker said {message}")

    def _ask(self, order: Order, asker: _Worker) -> None:
        """Has all do what one worker asks for."""
        self._asked += 1
        before = None
        if order.what in CHANGES:
            before = self._journal.get(order.words[0])
            self._journal[order.words[0]] = order
        self._questions[self._asked] = _Question(order, asker, set(self._workers), before)
        for worker in self._workers:
            worker.line.send(Order(self._asked, order.what, order.words))

    def _answer(self, outcome: Outcome, worker: _Worker) -> None:
        question = self._questions[outcome.id]
        question.outcomes.append(outcome)
        if question.order.what == "scrape":
            worker.scraped = outcome.value
        self._settle(outcome.id, worker)

    def _settle(self, id: int, worker: _Worker) -> None:
        """Answers the asker once nobody's answer is missing."""
        question = self._questions[id]
        question.awaited.discard(worker)
        if question.awaited:
            return
        del self._questions[id]
        order, outcomes = question.order, question.outcomes
        if order.what in CHANGES and all(each.code for each in outcomes):
            self._forget(order, question.before)
        if order.what == "scrape":
            scraped = Scraped.of(*(each.value for each in outcomes))
            scraped.add_counts(self._gone)
            outcomes = [Outcome(id, scraped.text())]
        question.asker.line.send(Outcomes(order.id, outcomes))

    def _forget(self, order: Order, before: Order | None) -> None:
        """Keeps no change that failed: nothing has changed, and names may be made up by clients."""
        name = order.words[0]
        if self._journal.get(name) is order:
            if before is None:
                del self._journal[name]
            else:
                self._journal[name] = before

    def _count_in(self, up: Up, worker: _Worker) -> None:
        worker.is_up = True
        if self._all_up or sum(each.is_up for each in self._workers) < self._settings.parallel_workers:
            return
        self._all_up = True
        for each in self._workers:
            each.line.send(AllUp())
        self._started(Started([_address(anchor) for anchor in self._anchors], up.served, up.failed))

    def _lose(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        worker.line.close()
        if worker.scraped:
            self._gone.add(worker.scraped)
        for id in [id for id, question in self._questions.items() if worker in question.awaited]:
            self._settle(id, worker)


def _bound(bind: str) -> socket.socket:
    """A socket that keeps an address for the workers' sockets, and takes no connections itself."""
    host, _, port = bind.rpartition(":")
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    anchor = socket.socket(family, kind, protocol)
    try:
        with socket.socket(family, kind, protocol) as alone:  # another server might share its port with us unasked
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
        anchor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        anchor.bind(address)
    except OSError as error:
        anchor.close()
        raise OSError(error.errno, error.strerror, bind) from None
    return anchor


def _beside(anchor: socket.socket) -> socket.socket:
    """Another socket of the same address."""
    beside = socket.socket(anchor.family, anchor.type, anchor.proto)
    beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    beside.bind(anchor.getsockname())
    return beside


def _address(anchor: socket.socket) -> str:
    host, port, *_ = anchor.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _signal(worker: _Worker, number: signal.Signals) -> None:
    if worker.process.returncode is None:
        worker.process.send_signal(number)
