"""From a configuration to the routes being served: build all, warm all, one assignment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np

from bandits import Fitted, Policy, sampler
from protos.errors import CallError
from protos.messages import ModelMetadataResponse
from router.call import Handler, Layer
from router.config import Arm as ArmSettings
from router.config import Config, read_config
from router.config import Route as Settings
from router.errors import ConfigError
from router.guard import Guard
from router.layers.limit import limited
from router.layers.log import logged
from router.layers.metrics import measured
from router.learner import Learner
from router.metrics import Metrics
from router.route import Arm, Route, Routes, Stamp
from router.stores import StoreError
from router.upstreams.connections import Connections

FIXED = ("listen", "admin", "models", "store", "flush_seconds", "refresh_seconds")
"""What a running process cannot change: a reload that tries is refused."""


class Table:
    """The routes, the handler of each, and how they are replaced."""

    def __init__(
        self,
        path: Path,
        routes: Routes,
        learner: Learner,
        connections: Connections,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], tuple[str, float]],
    ) -> None:
        """`path` is the configuration file; `clock` gives seconds since the epoch."""
        self.handlers: dict[str, Handler] = {}
        self._path = path
        self._routes = routes
        self._learner = learner
        self._connections = connections
        self._metrics = metrics
        self._clock = clock
        self._new_id = new_id
        self._config: Config | None = None
        self._loading = asyncio.Lock()  # two at a time would close each other's upstreams

    async def load(self, config: Config) -> None:
        """Serves a configuration. Raises ConfigError, and then nothing has changed."""
        async with self._loading:
            self._check_fixed(config)
            try:
                built = [await self._build(name, settings) for name, settings in config.routes.items()]
            except BaseException:
                await self._connections.keep_only(_arms(self._config))
                raise
            handlers = {route.name: self._handler(route.name, config) for route in built}
            self._routes.current = {route.name: replace(route, allowed=route.guard.allowed()) for route in built}
            self.handlers = handlers
            self._config = config
            await self._connections.keep_only(_arms(config))

    async def reload(self) -> None:
        """Reads the file again. Raises ConfigError, and then nothing has changed."""
        try:
            await self.load(read_config(self._path))
        except ConfigError:
            self._metrics.reloads.labels("refused").inc()
            raise
        self._metrics.reloads.labels("served").inc()

    def _check_fixed(self, config: Config) -> None:
        if self._config is None:
            return
        changed = [name for name in FIXED if getattr(config, name) != getattr(self._config, name)]
        if changed:
            raise ConfigError(f"{self._path}: {', '.join(changed)}: cannot change while running; restart to change it")

    async def _build(self, name: str, settings: Settings) -> Route:
        arms = tuple([await self._arm(name, arm, settings) for arm in settings.arms])
        await self._check_inputs(name, arms)
        names = [arm.name for arm in arms]
        policy = settings.policy.build(names)
        fitted = policy.fit(np.zeros((len(arms), policy.width)))
        guard = self._guard(name, settings, policy, fitted)
        route = Route(
            name=name,
            settings=settings,
            arms=arms,
            policy=policy,
            draw=sampler(settings.salt or name, names),
            guard=guard,
            log=self._learner,
            new_id=self._new_id,
            changed=self._routes.guard_changed,
            fitted=fitted,
            version="",
            allowed=guard.allowed(),
        )
        try:
            return await self._learner.fit(route)
        except StoreError as error:
            raise ConfigError(f"{self._path}: routes.{name}: {error}") from None

    def _guard(self, name: str, settings: Settings, policy: Policy, fitted: Fitted) -> Guard:
        """The guard of a route: the one it has, if the change is not about its arms, so that who is out stays out."""
        served = self._routes.current.get(name)
        if (
            served is not None
            and list(served.settings.arms.items()) == list(settings.arms.items())
            and (served.settings.guard, served.policy) == (settings.guard, policy)
        ):
            return served.guard
        arms = len(settings.arms)
        never = np.flatnonzero(fitted(None, np.ones(arms, dtype=np.bool_)) == 0)
        return Guard(settings.guard, arms, monotonic, never=never)

    async def _arm(self, route: str, name: str, settings: Settings) -> Arm:
        try:
            upstream = await self._connections.upstream(settings.arms[name])
        except CallError as error:
            raise ConfigError(f"{self._path}: routes.{route}.arms.{name}: {error}") from None
        return Arm(name, upstream, measured(self._metrics, route, name)(upstream), Stamp(route, name))

    async def _check_inputs(self, route: str, arms: tuple[Arm, ...]) -> None:
        """Any request of a route may go to any of its arms, so those that answer must take the same inputs."""
        known: tuple[str, list[tuple[str, str, tuple[int, ...]]]] | None = None
        for arm in arms:
            try:
                inputs = _signature(await arm.upstream.metadata())
            except CallError:
                continue  # a remote that is away; the guard deals with it
            if known is None:
                known = arm.name, inputs
            elif inputs != known[1]:
                raise ConfigError(
                    f"{self._path}: routes.{route}.arms: {arm.name} takes {inputs}, but {known[0]} takes {known[1]};"
                    " the arms of a route must take the same inputs"
                )

    def _handler(self, name: str, config: Config) -> Handler:
        """The layers of a route around whatever state of it is current when a request comes."""
        layers: list[Layer] = [limited(config.routes[name].max_in_flight)]
        if config.request_log:
            layers.append(logged(sys.stdout, self._clock))
        handler = self._routes.handler(name)
        for layer in layers:
            handler = layer(handler)
        return handler


def _arms(config: Config | None) -> list[ArmSettings]:
    return [arm for route in config.routes.values() for arm in route.arms.values()] if config else []


def _signature(metadata: ModelMetadataResponse) -> list[tuple[str, str, tuple[int, ...]]]:
    return sorted((tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in metadata.inputs)
