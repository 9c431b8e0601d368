"""From a configuration to the routes being served: build all, warm all, one assignment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from router.builder import Builder
from router.call import Handler, Layer
from router.config import Arm as ArmSettings
from router.config import Change, Config, changes
from router.context.lookups import Lookups, Tables
from router.errors import ConfigError
from router.learning.learner import Learner
from router.route import Route, Routes
from router.safety.events import reloaded
from router.stores import StoreError
from router.upstreams.connections import Connections

_log = logging.getLogger(__name__)

FIXED = (
    "listen",
    "admin",
    "tls",
    "admin_tls",
    "models",
    "store",
    "flush_seconds",
    "refresh_seconds",
    "linger_seconds",
    "workers",
    "tracing",
)
"""What a running process cannot change: a reload that tries is refused."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A configuration that could be served, all of it built and warm."""

    config: Config
    routes: Mapping[str, Route]
    tables: Tables


class Table:
    """The routes, the handler of each, and how they are replaced."""

    def __init__(
        self,
        path: Path,
        routes: Routes,
        builder: Builder,
        connections: Connections,
        learner: Learner,
        lookups: Lookups,
        around: Callable[[str, Config], Sequence[Layer]],
    ) -> None:
        """`path` is the configuration file; `around` gives the layers of a route, the inner ones first."""
        self.handlers: dict[str, Handler] = {}
        self.config: Config | None = None  # that is being served
        self._path = path
        self._routes = routes
        self._builder = builder
        self._connections = connections
        self._learner = learner
        self._lookups = lookups
        self._around = around
        self._prepared: _Prepared | None = None
        self._changing = asyncio.Lock()  # two at a time would close each other's upstreams

    async def load(self, config: Config) -> list[Change]:
        """Serves a configuration; returns what that changes. Raises ConfigError, and then nothing has changed."""
        async with self._changing:
            return await self._switch(await self._prepare(config))

    async def prepare(self, config: Config) -> None:
        """Builds and warms all of it, and serves none of it yet. Raises ConfigError, and then nothing has changed."""
        async with self._changing:
            self._prepared = await self._prepare(config)

    async def switch(self) -> list[Change]:
        """Serves what was prepared; returns what that changed."""
        async with self._changing:
            prepared, self._prepared = self._prepared, None
            if prepared is None:
                raise ConfigError(f"{self._path}: nothing was prepared to be served")
            return await self._switch(prepared)

    async def write_down(self, changed: Sequence[Change], now: float, who: str = "") -> None:
        """Writes what a reload changed into the logs of the routes; `now` is in seconds since the epoch."""
        if not (events := reloaded(changed, now, who)):
            return
        try:
            await self._learner.in_store(lambda store: store.put("reloads", {}, events=events))
        except StoreError as error:
            _log.error("the configuration is served, and nobody has written down what that changed: %s", error)

    async def drop(self) -> None:
        """Lets go of what was prepared, if anything was."""
        async with self._changing:
            if self._prepared is not None:
                self._prepared = None
                await self._connections.keep_only(_arms(self.config))

    async def _prepare(self, config: Config) -> _Prepared:
        self._check_fixed(config)
        try:
            built = [await self._builder.build(name, settings) for name, settings in config.routes.items()]
            return _Prepared(config, {route.name: route for route in built}, await self._tables(config))
        except BaseException:
            await self._connections.keep_only(_arms(self.config))
            raise

    async def _switch(self, prepared: _Prepared) -> list[Change]:
        config, before = prepared.config, self._routes.current
        handlers = {name: self._handler(name, config) for name in prepared.routes}
        self._lookups.publish(config.features, prepared.tables)
        self._routes.current = {name: route.now(route) for name, route in prepared.routes.items()}
        for route in prepared.routes.values():
            if route.tally is not None:
                route.tally.watch(route.watches)
        self.handlers = handlers
        changed = [] if self.config is None else changes(self.config, config)
        self.config = config
        with suppress(StoreError):  # the learner looks again
            await self._learner.look()
        await self._let_go(before)
        await self._connections.keep_only(_arms(config))
        return changed

    async def _tables(self, config: Config) -> Tables:
        try:
            return await self._learner.in_store(lambda store: self._lookups.read(config.features, store))
        except StoreError as error:
            raise ConfigError(f"{self._path}: features: {error}") from None

    async def _let_go(self, before: Mapping[str, Route]) -> None:
        """What routes counted that are no more is not lost, and copies for their shadows are given up."""
        for name, route in before.items():
            served = self._routes.current.get(name)
            self._learner.journal.drain(route)
            if route.shadows is not None and (served is None or served.shadows is not route.shadows):
                await route.shadows.close()

    def _check_fixed(self, config: Config) -> None:
        if self.config is None:
            return
        changed = [name for name in FIXED if getattr(config, name) != getattr(self.config, name)]
        if changed:
            raise ConfigError(f"{self._path}: {', '.join(changed)}: cannot change while running; restart to change it")

    def _handler(self, name: str, config: Config) -> Handler:
        """The layers of a route around whatever state of it is current when a request comes."""
        handler = self._routes.handler(name)
        for layer in self._around(name, config):
            handler = layer(handler)
        return handler


def _arms(config: Config | None) -> list[ArmSettings]:
    return [arm for route in config.routes.values() for arm in route.arms.values()] if config else []
