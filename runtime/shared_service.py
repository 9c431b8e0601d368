"""The service of one of several processes that serve the same models on the same ports.

What changes the models in one is done in all before it is acknowledged. One that takes the place of another loads what
is on the disk now: where that is not what the others loaded, it takes no connections, lest two models bear one name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from protos.errors import FailedPrecondition, Internal
from protos.messages import RepositoryIndexResponse
from protos.workers.crew import Crew
from runtime.catalogue import State
from runtime.engine import Engine
from runtime.server import RuntimeService
from runtime.words import shown

AGAIN = 0.5  # seconds after which who is held back looks again at what the others serve

_UNLIKE = "its files changed, and not all processes have loaded the same; load it again"
_log = logging.getLogger(__name__)

_Prints = dict[str, dict[str, str]]  # the fingerprint of each version of each model


class Loaded(msgspec.Struct, frozen=True):
    """What a process has loaded, and whether it takes connections."""

    serves: bool
    models: _Prints


class SharedService(RuntimeService, Collector):
    """Answers V2 calls from one of several engines, and has what concerns all of them done by all."""

    def __init__(self, engine: Engine, name: str, crew: Crew) -> None:
        super().__init__(engine, name)
        self._crew = crew
        self._loading: asyncio.Task[Any] | None = None
        self._caught_up = self._serves = self._held_back = False

    async def join(self, registry: CollectorRegistry, loading: asyncio.Task[Any] | None) -> None:
        """Takes part from now on in what is asked of all. Returns when it is time to listen."""
        self._loading = loading
        registry.register(self)
        caught_up = self._crew.join(self.do, registry)
        if self._crew.all_up:  # nobody need wait here: the others serve
            await asyncio.gather(caught_up, *([loading] if loading else []), return_exceptions=True)
            self._caught_up = True
            await self._agree()
        self._caught_up = self._serves = True

    async def do(self, what: str, *words: str) -> bytes:
        """Does here what was asked of all."""
        if what not in {"index", "loaded"} and self._loading is not None:
            await asyncio.shield(self._loading)  # which would load again what is unloaded, for what is made of it
        match what, words:
            case "load", [name]:
                await super().load(name)
                return msgspec.json.encode(self._prints(name))
            case "load_as", [name, config]:
                await super().load_as(name, config)
                return msgspec.json.encode(self._prints(name))
            case "unload", [name]:
                await super().unload(name)
            case "index", []:
                return (await super().index(ready=False)).SerializeToString() if self._serves else b""
            case "loaded", []:
                return msgspec.json.encode(Loaded(self._serves, self._prints())) if self._caught_up else b""
            case _:
                raise Internal(f"no worker knows how to {what}")
        return b""

    async def ready(self) -> bool:
        return self._crew.all_up and await super().ready()

    async def index(self, *, ready: bool) -> RepositoryIndexResponse:
        """What is ready wherever calls arrive, and of the rest what the first process says that is behind."""
        entries: dict[tuple[str, str], RepositoryIndexResponse.ModelIndex] = {}
        for told in await self._crew.ask("index"):
            for entry in RepositoryIndexResponse.FromString(told).models:
                key = (entry.name, entry.version)
                if key not in entries or entries[key].state == State.READY.value:
                    entries[key] = entry
        loaded = [each.models for each in await self._loaded()]
        for entry in entries.values():
            prints = {each.get(entry.name, {}).get(entry.version) for each in loaded}
            if len(prints) > 1 and entry.state == State.READY.value:
                entry.reason = entry.reason or _UNLIKE
        return RepositoryIndexResponse(
            models=[entry for entry in entries.values() if entry.state == State.READY.value or not ready]
        )

    def collect(self) -> Iterator[Metric]:
        """What this process adds to what is counted."""
        text = "Processes that take no connections, as they have not loaded what the others serve."
        yield GaugeMetricFamily("runtime_workers_held_back", text, value=self._held_back)

    async def load(self, name: str) -> None:
        _check_alike(name, await self._crew.ask("load", name))

    async def load_as(self, name: str, config: str) -> None:
        _check_alike(name, await self._crew.ask("load_as", name, config))

    async def unload(self, name: str) -> None:
        await self._crew.ask("unload", name)

    async def _agree(self) -> None:
        """Returns when what those serve that take connections is loaded here, too; at once where nobody does."""
        said: list[str] = []
        while serving := [each.models for each in await self._loaded() if each.serves]:
            mine = self._prints()
            named = sorted({name for each in serving for name in each})
            unlike = [name for name in named if all(each.get(name) != mine.get(name) for each in serving)]
            if not unlike:
                break
            if unlike != said:
                _log.error(
                    "this process takes no connections, as it has not loaded what the others serve of %s: files "
                    "changed, do not load, or are written by the model; load again what is named, and all serve the "
                    "same",
                    ", ".join(map(shown, unlike)),
                )
            said = unlike
            self._held_back = True
            await asyncio.sleep(AGAIN)
        else:
            _log.warning("no other process serves any more: what is on the disk now is served, loaded before or not")
        self._held_back = False

    async def _loaded(self) -> list[Loaded]:
        """What each process has loaded, but of those that still catch up."""
        return [msgspec.json.decode(each, type=Loaded) for each in await self._crew.ask("loaded") if each]

    def _prints(self, name: str = "") -> _Prints:
        prints: _Prints = {}
        for (each, version), served in self._engine.all_served(name).items():
            prints.setdefault(each, {})[version] = served.fingerprint
        return prints


def _check_alike(name: str, prints: Iterable[bytes]) -> None:
    """Raises FailedPrecondition where processes loaded files that are not the same, as they changed meanwhile."""
    if len(set(prints)) > 1:
        raise FailedPrecondition(f"model {shown(name)}: {_UNLIKE}")
