"""The service of one of several processes that serve the same models on the same ports.

What changes the models in one is done in all before it is acknowledged.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry

from protos.errors import Internal
from protos.messages import RepositoryIndexResponse
from protos.workers.crew import Crew
from runtime.catalogue import State
from runtime.engine import Engine
from runtime.server import RuntimeService


class SharedService(RuntimeService):
    """Answers V2 calls from one of several engines, and has what concerns all of them done by all."""

    def __init__(self, engine: Engine, name: str, crew: Crew) -> None:
        super().__init__(engine, name)
        self._crew = crew
        self._loading: asyncio.Task[Any] | None = None

    async def join(self, registry: CollectorRegistry, loading: asyncio.Task[Any] | None) -> None:
        """Takes part from now on in what is asked of all. Returns when it is time to listen."""
        self._loading = loading
        caught_up = self._crew.join(self.do, registry)
        if self._crew.all_up:  # nobody need wait here: the others serve
            await asyncio.gather(caught_up, *([loading] if loading else []), return_exceptions=True)

    async def do(self, what: str, *words: str) -> bytes:
        """Does here what was asked of all."""
        if what != "index" and self._loading is not None:
            await asyncio.shield(self._loading)  # which would load again what is unloaded, for what is made of it
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
