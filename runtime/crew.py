"""One of several processes that serve the same models on the same ports.

What changes the models in one is done in all before it is acknowledged: the process that was asked asks its supervisor,
which orders it of everybody, in one order for all. What is counted is asked for in the same way.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from protos.errors import CallError, FailedPrecondition, Internal, InvalidArgument, NotFound, Unimplemented
from protos.messages import RepositoryIndexResponse
from runtime.engine import Engine, State
from runtime.line import AllUp, Line, Order, Outcome, Outcomes, Up
from runtime.scrapes import Scraped
from runtime.server import RuntimeService

Do = Callable[..., Awaitable[bytes]]  # of what, and its words

_ERRORS: dict[int, type[CallError]] = {
    error.code: error for error in (FailedPrecondition, InvalidArgument, NotFound, Unimplemented)
}
_log = logging.getLogger(__name__)


class Crew:
    """All processes, as one of them sees them.

    `journal` is what was ordered before this process came, and `late` whether the others serve already.
    """

    def __init__(self, line: Line, journal: Sequence[Order], *, late: bool) -> None:
        self.all_up = late
        self._line = line
        self._journal = journal
        self._late = late
        self._ids = itertools.count()
        self._asked: dict[int, asyncio.Future[list[Outcome]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def join(self, do: Do, registry: CollectorRegistry, loading: asyncio.Task[Any] | None) -> None:
        """Does from now on what is ordered. Returns when it is time to listen."""
        self._do, self._registry = do, registry
        caught_up = [self._background(self._outcome(order)) for order in self._journal]
        self._background(self._hear())
        if self._late:  # nobody need wait here: the others serve
            await asyncio.gather(*caught_up, *([loading] if loading else []), return_exceptions=True)

    def up(self, served: list[str], failed: list[tuple[str, str]]) -> None:
        """Tells that this process listens, and has loaded what it was to load."""
        self._line.send(Up(served, failed))

    async def ask(self, what: str, *words: str) -> list[bytes]:
        """Has everybody do something. Raises the first error, once all have tried."""
        id = next(self._ids)
        self._asked[id] = asyncio.get_running_loop().create_future()
        self._line.send(Order(id, what, list(words)))
        try:
            outcomes = await self._asked[id]
        finally:
            del self._asked[id]
        for outcome in outcomes:
            if outcome.code:
                raise _ERRORS.get(outcome.code, Internal)(outcome.message)
        return [outcome.value for outcome in outcomes]

    async def scrape(self) -> Scraped:
        """What is counted in all processes together."""
        (text,) = await self.ask("scrape")
        return Scraped.of(text)

    async def _hear(self) -> None:
        while (message := await self._line.receive()) is not None:
            match message:
                case Order() as order:
                    self._background(self._report_on(order))
                case Outcomes(id, each) if id in self._asked:
                    self._asked[id].set_result(each)
                case AllUp():
                    self.all_up = True
                case _:
                    pass  # the answer for a client who has left
        signal.raise_signal(signal.SIGTERM)  # the supervisor is gone: nobody else would ever end this process

    async def _report_on(self, order: Order) -> None:
        self._line.send(await self._outcome(order))

    async def _outcome(self, order: Order) -> Outcome:
        try:
            if order.what == "scrape":
                return Outcome(order.id, generate_latest(self._registry))
            return Outcome(order.id, await self._do(order.what, *order.words))
        except CallError as error:
            return Outcome(order.id, code=error.code, message=error.message)
        except Exception:  # noqa: BLE001 - one worker's failure is an answer too
            _log.exception("to %s failed", order.what)
            return Outcome(order.id, code=Internal.code, message="internal error; the server's log has the traceback")

    def _background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class SharedService(RuntimeService):
    """Answers V2 calls from one of several engines, and has what concerns all of them done by all."""

    def __init__(self, engine: Engine, name: str, crew: Crew) -> None:
        super().__init__(engine, name)
        self._crew = crew

    async def join(self, registry: CollectorRegistry, loading: asyncio.Task[Any] | None) -> None:
        """Takes part from now on in what is asked of all. Returns when it is time to listen."""
        await self._crew.join(self.do, registry, loading)

    async def do(self, what: str, *words: str) -> bytes:
        """Does here what was asked of all."""
        match what, words:
            case "load", [name]:
                await super().load(name)
            case "load_as", [name, config]:
                await super().load_as(name, config)
            case "unload", [name]:
                await super().unload(name)
            case "index", []:
                return (await super().index(ready=False)).SerializeToString()
            case _:
                raise Internal(f"no worker knows how to {what}")
        return b""

    async def ready(self) -> bool:
        return self._crew.all_up and await super().ready()

    async def index(self, *, ready: bool) -> RepositoryIndexResponse:
        """What is ready everywhere, and of the rest what the first process says that is behind."""
        entries: dict[tuple[str, str], RepositoryIndexResponse.ModelIndex] = {}
        for told in await self._crew.ask("index"):
            for entry in RepositoryIndexResponse.FromString(told).models:
                key = (entry.name, entry.version)
                if key not in entries or entries[key].state == State.READY.value:
                    entries[key] = entry
        return RepositoryIndexResponse(
            models=[entry for entry in entries.values() if entry.state == State.READY.value or not ready]
        )

    async def load(self, name: str) -> None:
        await self._crew.ask("load", name)

    async def load_as(self, name: str, config: str) -> None:
        await self._crew.ask("load_as", name, config)

    async def unload(self, name: str) -> None:
        await self._crew.ask("unload", name)
