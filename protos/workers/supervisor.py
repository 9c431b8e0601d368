"""Keeps so many processes serving the same, and has what concerns all of them done by all.

A worker that dies takes its sockets with it, so that new connections go to the others while its successor loads.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress

import msgspec

from protos.background import Background
from protos.serve import DRAIN_SECONDS
from protos.workers.line import Headcount, Line, Order, Outcome, Outcomes, Post, Up
from protos.workers.scrapes import Scraped
from protos.workers.sockets import address_of, anchored, beside

GRACE = 5.0  # seconds beyond those that a worker may take, after which it is killed
SHORT_LIFE = 10.0  # seconds; a worker that lived less has a successor only after a pause
LONGEST_PAUSE = 30.0
ANSWER_SECONDS = 2.0  # to what only asks; who has not said by then what it counted, counts as it last did

_log = logging.getLogger(__name__)


class _Worker:
    """A worker process, and the line to it."""

    def __init__(self, process: Process, line: Line) -> None:
        self.process = process
        self.line = line
        self.scraped = b""  # what it last said it had counted
        self.is_up = False

    def signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)


class _Question:
    """An order that all were given, and how they did so far."""

    def __init__(self, order: Order, asked: set[_Worker]) -> None:
        self.order = order
        self.outcomes: list[Outcome] = []
        self.awaited = asked
        self.done: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()


class Supervisor:
    """Keeps `workers` processes `python -m MODULE DESCRIPTOR` doing `work` at the addresses `binds`.

    `started` is told, once all of them serve, the addresses and what the last one had to say. `greatest` are the
    gauges that are not added up (see `scrapes`).

    A successor has to know what was ordered before it came. `key` says of an order what it is about, or None for one
    that changes nothing: the last one about each matter that anybody could do is told to those who come later, and
    what is under way, in the order in which they were given. The order `replacing` gives everybody another work: first
    each is asked to "try_" it, and only when nobody refuses to do it; else to "drop_" it.
    """

    def __init__(
        self,
        module: str,
        work: str,
        binds: Sequence[str],
        workers: int,
        started: Callable[[list[str], bytes], None],
        *,
        key: Callable[[Order], str | None] = lambda _order: None,
        replacing: str = "",
        greatest: Collection[str] = (),
    ) -> None:
        self._module = module
        self._work = work
        self._binds = binds
        self._wanted = workers
        self._started = started
        self._key = key
        self._replacing = replacing
        self._replaced = asyncio.Lock()  # one at a time
        self._greatest = greatest
        self.shared: Sequence[int] = ()  # descriptors that all workers inherit
        self.asking: Collection[str] = ()  # orders that only ask: whom a model's code holds up is not waited for
        self.stop_seconds = DRAIN_SECONDS  # that they may take from the signal to their end
        self._workers: set[_Worker] = set()
        self._all_up = False
        self._journal: dict[str, Order] = {}
        self._questions: dict[int, _Question] = {}
        self._asked = 0
        self._gone = Scraped(greatest)
        self._stop = asyncio.Event()
        self._failed = False
        self._background = Background()

    async def run(self) -> bool:
        """Serves until SIGTERM or SIGINT, then drains all workers. False if they could not even start.

        SIGHUP is another SIGTERM, unless it is ignored or something else is done on it already. Raises OSError, with
        the address as its file name, when one cannot be bound.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            loop.add_signal_handler(signal.SIGHUP, self._end, signal.SIGTERM)
        self._anchors = [anchored(bind) for bind in self._binds]
        tending = [asyncio.create_task(self._tend(number)) for number in range(self._wanted)]
        for task in tending:
            task.add_done_callback(lambda _ended: None if self._stop.is_set() else self._end(signal.SIGTERM))
        await self._stop.wait()
        await asyncio.wait(tending, timeout=self.stop_seconds + GRACE)
        for worker in self._workers:
            worker.signal(signal.SIGKILL)
        for anchor in self._anchors:
            anchor.close()
        await asyncio.gather(*tending)
        return not self._failed

    async def ask(self, what: str, *words: str) -> list[Outcome]:
        """Has all do something; how each of them did, once all have tried, or of what only asks, those in time."""
        if what == "scrape":
            return [await self._scrape()]
        if what in self.asking:
            question = self._put(what, words)
            await asyncio.wait([question.done], timeout=ANSWER_SECONDS)
            return question.outcomes
        if what != self._replacing:
            return await self._put(what, words).done
        async with self._replaced:
            tried = await self._put(f"try_{what}", words).done
            if any(each.code for each in tried):
                await self._put(f"drop_{what}", words).done
                return tried
            (self._work,) = words
            return await self._put(what, words).done

    def signal_one(self, number: signal.Signals) -> None:
        """Passes a signal on to one of those that serve, which may then ask for what is to be done by all."""
        for worker in self._workers:
            if worker.is_up:
                worker.signal(number)
                return

    def _end(self, number: signal.Signals) -> None:
        """Passes on what it was told: those who are told again wait for nobody. SIGINT is for those who expect it."""
        self._stop.set()
        for worker in self._workers:
            worker.signal(number if worker.is_up else signal.SIGTERM)

    async def _tend(self, number: int) -> None:
        """Keeps one worker alive, and its successors."""
        loop, pause = asyncio.get_running_loop(), 0.5
        while not self._stop.is_set():
            began = loop.time()
            ended = await self._live(number)
            if self._stop.is_set():
                return
            if not self._all_up:
                _log.error("a worker %s before all were up", ended)
                self._failed = True
                self._end(signal.SIGTERM)
                return
            _log.error("a worker %s; another takes its place", ended)
            pause = min(2 * pause, LONGEST_PAUSE) if loop.time() - began < SHORT_LIFE else 0.5
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    async def _live(self, number: int) -> str:
        """Has one worker live from its start to its end; says how it ended."""
        try:
            worker = await self._begin(number)
        except OSError as error:  # too many processes or too little memory just now, perhaps
            return f"could not be started ({error})"
        await self._hear(worker)
        status = await worker.process.wait()
        self._lose(worker)
        return f"ended with status {status}"

    async def _begin(self, number: int) -> _Worker:
        with ExitStack() as opened:
            sockets = [opened.enter_context(beside(anchor)) for anchor in self._anchors]
            ours, theirs = map(opened.enter_context, socket.socketpair())
            inherited = [each.fileno() for each in (*sockets, theirs)]
            command = [sys.executable, "-m", self._module, str(theirs.fileno())]
            process = await asyncio.create_subprocess_exec(*command, pass_fds=[*inherited, *self.shared])
            worker = _Worker(process, await Line.over(socket.socket(fileno=ours.detach())))
        # From here on it hears what is ordered, and before that what was.
        under_way = [each.order for each in self._questions.values() if each.order.changes]
        journal = sorted([*self._journal.values(), *under_way], key=lambda order: order.id)
        shared = list(self.shared)
        worker.line.send(Post(self._work, inherited[:-1], journal, self._all_up, number, self._wanted, shared))
        self._workers.add(worker)
        if self._stop.is_set():  # it was not there yet when the others were told
            worker.signal(signal.SIGTERM)
        return worker

    async def _hear(self, worker: _Worker) -> None:
        while (message := await worker.line.receive()) is not None:
            match message:
                case Order():
                    self._background.start(self._ask_for(message, worker))
                case Outcome():
                    self._answered(message, worker)
                case Up():
                    self._count_in(message, worker)
                case _:
                    raise AssertionError(f"a worker said {message}")

    async def _ask_for(self, order: Order, asker: _Worker) -> None:
        """Has all do what one worker asks for, and tells it how they did."""
        outcomes = await self.ask(order.what, *order.words)
        asker.line.send(Outcomes(order.id, outcomes))

    async def _scrape(self) -> Outcome:
        """What all have counted, those who are gone too."""
        question = self._put("scrape", [])
        await asyncio.wait([question.done], timeout=ANSWER_SECONDS)
        scraped = Scraped.of(*(each.scraped for each in self._workers), greatest=self._greatest)
        scraped.add_counts(self._gone)
        return Outcome(question.order.id, scraped.text())

    def _put(self, what: str, words: Sequence[str]) -> _Question:
        self._asked += 1
        order = Order(self._asked, what, list(words))
        order = msgspec.structs.replace(order, changes=self._key(order) is not None)
        question = _Question(order, set(self._workers))
        self._questions[self._asked] = question
        for worker in self._workers:
            worker.line.send(order)
        self._settle(question)
        return question

    def _answered(self, outcome: Outcome, worker: _Worker) -> None:
        question = self._questions[outcome.id]
        question.outcomes.append(outcome)
        if question.order.what == "scrape" and not outcome.code:  # else it counts as it last did
            worker.scraped = outcome.value
        self._excuse(question, worker)

    def _excuse(self, question: _Question, worker: _Worker) -> None:
        """Awaits nothing of this worker any more."""
        question.awaited.discard(worker)
        self._settle(question)

    def _settle(self, question: _Question) -> None:
        if not question.awaited:
            del self._questions[question.order.id]
            key = self._key(question.order)
            # Not what all failed to do: that has changed nothing, and its key may be a client's invention.
            if key is not None and not all(each.code for each in question.outcomes):
                self._journal[key] = question.order
            question.done.set_result(question.outcomes)

    def _count_in(self, up: Up, worker: _Worker) -> None:
        worker.is_up = True
        self._tell_headcount()
        if not self._all_up and self._up == self._wanted:
            self._all_up = True
            self._started([address_of(anchor) for anchor in self._anchors], up.news)

    @property
    def _up(self) -> int:
        return sum(each.is_up for each in self._workers)

    def _tell_headcount(self) -> None:
        for each in self._workers:
            each.line.send(Headcount(self._up, self._wanted))

    def _lose(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        worker.line.close()
        if worker.scraped:
            self._gone.add(worker.scraped)
        for question in [each for each in self._questions.values() if worker in each.awaited]:
            self._excuse(question, worker)
        self._tell_headcount()
