"""The router as a process: everything put together, served, drained and closed."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from protos.grpc import MAX_MESSAGE, GrpcApp
from protos.rest import rest_app, v2_routes
from protos.serve import Listener, one_port, serve
from router.admin import admin_routes
from router.config import Config
from router.errors import ConfigError
from router.ids import DecisionIds
from router.learner import Learner
from router.metrics import Metrics
from router.rest import croupier_routes
from router.route import Routes
from router.service import RouterService, methods
from router.stores import StoreError, open_store
from router.table import Table
from router.upstreams.connections import Connections
from router.upstreams.local import Models

_log = logging.getLogger(__name__)


async def serve_router(path: Path, config: Config, started: Callable[[str, str], None]) -> None:
    """Serves a configuration, read from `path`, until SIGTERM or SIGINT; SIGHUP reads the file again.

    `started` gets the addresses of clients and of operators once both accept. Raises ConfigError when the
    configuration cannot be served, OSError when an address cannot be bound, and StoreError when the last decisions
    could not be committed.
    """
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    metrics = Metrics(registry)
    try:
        store = open_store(config.store)
    except (StoreError, ValueError) as error:
        raise ConfigError(f"{path}: store: {error}") from None
    routes = Routes()
    learner = Learner(
        store,
        routes,
        metrics,
        time.time,
        flush_seconds=config.flush_seconds,
        refresh_seconds=config.refresh_seconds,
    )
    connections = Connections(Models(Path(config.models), registry) if config.models else None)
    new_id = DecisionIds(time.time, os.urandom(6))
    table = Table(path, routes, learner, connections, metrics, clock=time.time, new_id=new_id)
    service = RouterService(routes, lambda: table.handlers, learner, metrics, time.time, version("croupier"))

    async def reload() -> None:
        try:
            await table.reload()
        except ConfigError as error:
            _log.error("not reloaded, nothing has changed: %s", error)
            raise
        _log.info("reloaded %s", path)

    async def reload_on_signal() -> None:
        with suppress(ConfigError):  # it is logged, for whoever sent the signal
            await reload()

    def drain() -> None:
        service.draining = True

    learning: asyncio.Task[None] | None = None
    try:
        await table.load(config)
        learning = asyncio.create_task(learner.run())
        grpc = GrpcApp(methods(service), max_message=MAX_MESSAGE)
        rest = rest_app([*v2_routes(service), *croupier_routes(service)], max_body=MAX_MESSAGE)
        admin = rest_app(admin_routes(service, registry, reload), max_body=MAX_MESSAGE)
        await serve(
            Listener(one_port(grpc, rest), config.listen),
            Listener(admin, config.admin),
            started=lambda addresses: started(*addresses),
            stopping=drain,
            reload=reload_on_signal,
        )
    finally:
        learner.stop()
        try:
            if learning is not None:
                await learning
        finally:
            await connections.close()
            learner.close()
