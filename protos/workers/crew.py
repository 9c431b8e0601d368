"""All workers, as one of them sees them.

What everybody has to do before it is acknowledged is asked of the supervisor, which orders it of all, in one order for
all. What is counted is asked for in the same way.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CollectorRegistry

from protos.background import Background
from protos.errors import KINDS, CallError, Internal
from protos.metrics import text_of
from protos.workers.line import Headcount, Line, Order, Outcome, Outcomes, Post, Up
from protos.workers.scrapes import Scraped

Do = Callable[..., Awaitable[bytes]]
"""Does what is ordered, named by its first argument, with the words that follow. May raise a CallError."""

_log = logging.getLogger(__name__)


class Crew:
    """The line of a worker to its supervisor, and so to all."""

    def __init__(self, line: Line, post: Post) -> None:
        self.post = post
        self.up = 0  # workers that serve
        self.of = 0  # workers that there should be
        self.all_up = post.late  # once all have been, whoever is replaced since
        self._line = line
        self._ids = itertools.count()
        self._asked: dict[int, asyncio.Future[list[Outcome]]] = {}
        self._background = Background()

    @classmethod
    async def over(cls, descriptor: int) -> Crew:
        """The crew of the supervisor at the other end of an inherited socket. Raises EOFError when it is gone."""
        line = await Line.over(socket.socket(fileno=descriptor))
        match await line.receive():
            case Post() as post:
                return cls(line, post)
        raise EOFError("the supervisor ended before it said what to serve")

    @property
    def binds(self) -> list[str]:
        """Where to listen, as `protos.serve` takes it."""
        return [f"fd://{descriptor}" for descriptor in self.post.sockets]

    def join(self, do: Do, registry: CollectorRegistry) -> asyncio.Future[Any]:
        """Does from now on what is ordered, and says what is in `registry`. Done once what was ordered before is."""
        self._do, self._registry = do, registry
        self._caught_up = self._background.start(self._catch_up())
        self._background.start(self._hear())
        return self._caught_up

    def serves(self, news: bytes = b"") -> None:
        """Tells that this process serves, and what else there is to say to who started all."""
        self._line.send(Up(news))

    async def outcomes(self, what: str, *words: str) -> list[Outcome]:
        """Has everybody do something; how each of them did, once all have tried."""
        id = next(self._ids)
        self._asked[id] = asyncio.get_running_loop().create_future()
        self._line.send(Order(id, what, list(words)))
        try:
            return await self._asked[id]
        finally:
            del self._asked[id]

    async def ask(self, what: str, *words: str) -> list[bytes]:
        """Has everybody do something. Raises the first error, once all have tried."""
        outcomes = await self.outcomes(what, *words)
        for outcome in outcomes:
            if outcome.code:
                raise KINDS.get(outcome.code, Internal)(outcome.message)
        return [outcome.value for outcome in outcomes]

    async def scrape(self) -> Scraped:
        """What is counted in all processes together."""
        (text,) = await self.ask("scrape")
        return await asyncio.to_thread(Scraped.of, text)  # ten milliseconds and more, in which no request shall wait

    def close(self) -> None:
        """Hangs up."""
        self._line.close()

    async def _hear(self) -> None:
        while (message := await self._line.receive()) is not None:
            match message:
                case Order() as order:
                    self._background.start(self._report_on(order))
                case Outcomes(id, each) if (asked := self._asked.get(id)) and not asked.done():
                    asked.set_result(each)
                case Headcount(up, of):
                    self.up, self.of = up, of
                    self.all_up |= up == of
                case _:
                    pass  # the answer for a client who has left, perhaps in this very turn
        signal.raise_signal(signal.SIGTERM)  # the supervisor is gone: nobody else would ever end this process

    async def _catch_up(self) -> None:
        """Does what was ordered before, in its order, as one matter may bear on another; alike ones side by side."""
        for _, alike in itertools.groupby(self.post.journal, key=lambda order: order.what):
            await asyncio.gather(*map(self._outcome, alike))

    async def _report_on(self, order: Order) -> None:
        if order.changes:
            await asyncio.wait([self._caught_up])
        self._line.send(await self._outcome(order))

    async def _outcome(self, order: Order) -> Outcome:
        try:
            if order.what == "scrape":
                return Outcome(order.id, await text_of(self._registry))
            return Outcome(order.id, await self._do(order.what, *order.words))
        except CallError as error:
            return Outcome(order.id, code=error.code, message=error.message)
        except Exception:  # noqa: BLE001 - one worker's failure is an answer too
            _log.exception("to %s failed", order.what)
            return Outcome(order.id, code=Internal.code, message="internal error; the server's log has the traceback")
