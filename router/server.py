"""The router as a process: everything put together, served, drained and closed."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.registry import Collector

from protos.ending import Limit
from protos.grpc import GrpcApp
from protos.metrics import text_of
from protos.openapi import docs_routes
from protos.rest import rest_app, v2_routes
from protos.serve import DRAIN_SECONDS, Certificate, Listener, one_port, serve
from protos.workers.crew import Crew
from router.answers.reader import Reader
from router.answers.service import AnswerService, answer_methods
from router.builder import Builder
from router.call import Layer
from router.config import Change, Config, Tls, read_config
from router.context.lookups import Lookups
from router.dashboard import dashboard_routes
from router.dashboard.origin import own_pages
from router.edge.access import Access, asking, guarded, open_to_all
from router.edge.admin import admin_routes
from router.edge.feature_service import FeatureService, feature_methods
from router.edge.limits import Limits
from router.edge.readiness import Readiness, StoreState, readiness, ready_upstreams
from router.edge.rest import answer_routes, croupier_routes, feature_routes, switch_routes
from router.edge.service import RouterService, methods
from router.edge.switch_service import SwitchService, switch_methods
from router.errors import ConfigError
from router.ids import DecisionIds
from router.layers.limit import limited
from router.layers.log import logged
from router.learning.learner import Learner
from router.metrics import Metrics
from router.route import Routes
from router.stores import Store, StoreError, open_store
from router.table import Table
from router.upstreams.connections import Connections
from router.upstreams.local import Models
from router.workers import Workers

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

CLOSE_SECONDS = 4.0  # for what comes after the calls in flight; with those before it, within the 30 of Kubernetes

_log = logging.getLogger(__name__)


async def serve_router(
    path: Path, config: Config, started: Callable[[str, str], None], crew: Crew | None = None
) -> None:
    """Serves a configuration, read from `path`, until SIGTERM or SIGINT; SIGHUP reads the file again.

    From then on it takes so long at most as its settings and CLOSE_SECONDS allow, whatever a model's code still does.
    `started` gets the addresses of clients and of operators once both accept. With a `crew` this is one of several
    processes. Raises ConfigError when the configuration cannot be served, OSError when an address cannot be bound, and
    StoreError when the last decisions could not be committed.
    """
    # When each counter began: those of the request path do not know it.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    router = Router(path, config, crew)
    try:
        await router.table.load(config)
        learning = asyncio.create_task(router.learner.run())
        try:
            await router.serve(started)
        finally:
            router.learner.stop()
            await learning
    finally:
        await router.close()
        # asyncio would wait without a limit for a thread that reads a disk which does not answer.
        await asyncio.get_running_loop().shutdown_default_executor()
        router.limit.end()


class Router:
    """The parts of a router, put together for one configuration file."""

    def __init__(self, path: Path, config: Config, crew: Crew | None = None) -> None:
        """Opens the store. Raises ConfigError."""
        self._path = path
        self._config = config
        self._crew = crew
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._tracing, self._traced = _tracing(config)
        self._metrics = metrics = Metrics(self._registry)
        self._routes = routes = Routes()
        lookups = Lookups()
        store = self._open_store()
        self.learner = learner = Learner(
            store,
            routes,
            metrics,
            time.time,
            flush_seconds=config.flush_seconds,
            refresh_seconds=config.refresh_seconds,
            writer=os.urandom(8).hex(),
            refreshed=[lookups.refresh],
        )
        self._models = models = Models(Path(config.models), self._registry) if config.models else None
        self.limit = Limit(config.linger_seconds + DRAIN_SECONDS + CLOSE_SECONDS)
        self._connections = Connections(models, left_out=lambda target: metrics.left_out.labels(target).inc())
        new_id = DecisionIds(time.time, os.urandom(6))
        builder = Builder(path, routes, learner, self._connections, metrics, lookups, new_id)
        self.table = Table(path, routes, builder, self._connections, learner, lookups, self._layers)
        self._access = Access(_limits(crew))
        self._know_clients(config)
        # What takes long reads a file of its own; what a process keeps to itself has but one handle.
        self._reader = None if config.store == "memory:" else Reader(self._open_store)
        self._service = RouterService(
            routes, lambda: self.table.handlers, learner, metrics, time.time, version("croupier")
        )
        self._features = FeatureService(lookups, learner.in_store)
        self._switches = SwitchService(
            routes,
            learner.in_store,
            time.time,
            look=self._look,
            follow_seconds=config.refresh_seconds + config.flush_seconds,
            client=asking.get,
        )
        self._answers = AnswerService(
            routes, learner.in_store, self._reader or learner.in_store, self._seconds, time.time
        )
        self._workers = None if crew is None else Workers(crew, path, self)

    async def serve(self, started: Callable[[str, str], None]) -> None:
        """Listens until SIGTERM or SIGINT, and finishes the calls in flight. Raises OSError."""
        config, service = self._config, self._service
        most = config.max_message_mebibytes << 20
        grpc = GrpcApp(
            {
                **methods(service),
                **feature_methods(self._features),
                **switch_methods(self._switches),
                **answer_methods(self._answers),
            },
            max_message=most,
        )
        answers = [*croupier_routes(service), *switch_routes(self._switches), *answer_routes(self._answers)]
        routes = [*v2_routes(service), *answers, *feature_routes(self._features)]
        docs = docs_routes("croupier", version("croupier"), routes, service.model_metadata)
        rest = rest_app([*routes, *docs], max_body=most)
        operators = admin_routes(self._scrape, self._readiness, self.reload)
        admin = rest_app([*operators, *answers, *dashboard_routes()], max_body=most)
        binds = [config.listen, config.admin] if self._crew is None else self._crew.binds
        if self._crew is not None and self._workers is not None:
            await self._crew.join(self._workers.do, self._registry)
        await serve(
            Listener(guarded(one_port(grpc, own_pages(rest)), self._access), binds[0], tls=_certificate(config.tls)),
            Listener(guarded(own_pages(admin), self._access), binds[1], tls=_certificate(config.admin_tls)),
            started=lambda addresses: started(*addresses),
            stopping=self._drain,
            reload=self._reload_on_signal,
            linger_seconds=config.linger_seconds,
            drain_seconds=DRAIN_SECONDS,
        )

    async def reload(self) -> list[str]:
        """Serves the file as it is now; returns what that changed, which routes' logs then have, too.

        Raises ConfigError, and then nothing has changed.
        """
        try:
            if self._workers is not None:
                changed = await self._workers.reload()
            else:
                changed = self._served(await self.table.load(read_config(self._path)))
        except ConfigError as error:
            self._metrics.reloads.labels("refused").inc()
            _log.error("not reloaded, nothing has changed: %s", error)
            raise
        self._metrics.reloads.labels("served").inc()
        await self.table.write_down(changed, time.time(), asking.get())
        return [each.what for each in changed]

    async def prepare(self, config: Config) -> None:
        """Builds and warms all of it, and serves none of it yet. Raises ConfigError, and then nothing has changed."""
        await self.table.prepare(config)

    async def switch(self) -> list[Change]:
        """Serves what was prepared; returns what that changed."""
        return self._served(await self.table.switch())

    def _served(self, changed: list[Change]) -> list[Change]:
        """What follows from another configuration beside its routes."""
        if self.table.config is not None:
            self._know_clients(self.table.config)
        _log.info("reloaded %s: %s", self._path, "; ".join(each.what for each in changed) or "nothing has changed")
        return changed

    def _know_clients(self, config: Config) -> None:
        self._access.use(config.clients)
        if (addresses := open_to_all(config)) and (self._crew is None or self._crew.post.worker == 0):
            _log.warning(
                "whoever reaches %s may do everything there, such as switching arms off: name those who may under "
                "clients, or listen at 127.0.0.1",
                " and ".join(addresses),
            )

    async def drop(self) -> None:
        """Lets go of what was prepared, if anything was."""
        await self.table.drop()

    async def look(self) -> None:
        """Puts in force what replicas have agreed on about routes. Raises StoreError."""
        await self.learner.look()

    async def close(self) -> None:
        """Lets go of everything, after the learner has run."""
        await self._connections.close()
        if self._reader is not None:
            await asyncio.to_thread(self._reader.close)
        self.learner.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.shutdown)
        if self._models is not None:
            self.limit.unfinished = self._models.unfinished
            await self._models.close()

    def _open_store(self) -> Store:
        try:
            return open_store(self._config.store)
        except (StoreError, ValueError) as error:
            raise ConfigError(f"{self._path}: store: {error}") from None

    def _layers(self, name: str, config: Config) -> Sequence[Layer]:
        layers = [limited(config.routes[name].max_in_flight)]
        if config.request_log:
            layers.append(logged(sys.stdout, time.time))
        return [*layers, *self._traced]

    def _drain(self) -> None:
        self._service.draining = True
        self.limit.begin()

    async def _look(self) -> None:
        await (self if self._workers is None else self._workers).look()

    async def _reload_on_signal(self) -> None:
        with suppress(ConfigError):  # it is logged, for whoever sent the signal
            await self.reload()

    async def _seconds(self) -> Collector:
        """How long arms took, in all workers; among what else they have counted, where there are several."""
        return self._metrics.seconds if self._crew is None else await self._crew.scrape()

    async def _scrape(self) -> bytes:
        return await text_of(self._registry if self._crew is None else await self._crew.scrape())

    async def _readiness(self) -> Readiness:
        routes = self._routes.current
        return readiness(
            routes,
            await ready_upstreams(routes),
            StoreState(self.learner.outage.seconds, self.learner.journal.decisions_waiting),
            draining=self._service.draining,
            workers=None if self._workers is None else self._workers.state,
        )


def _limits(crew: Crew | None) -> Limits:
    """The limits of clients, which several workers share."""
    if crew is None:
        return Limits(time.monotonic)
    post = crew.post
    return Limits(time.monotonic, workers=post.workers, worker=post.worker, memory=post.shared[0])


def _certificate(tls: Tls | None) -> Certificate | None:
    return None if tls is None else Certificate(tls.certificate, tls.key, tls.client_ca)


def _tracing(config: Config) -> tuple[TracerProvider | None, list[Layer]]:
    """Where spans go, and the layer that makes them, if any. Raises ConfigError without OpenTelemetry."""
    if config.tracing is None:
        return None, []
    try:
        from protos.tracing import provider
        from router.layers.trace import traced
    except ImportError as error:
        raise ConfigError(f"tracing: needs OpenTelemetry: pip install 'croupier[otel]' ({error})") from None
    tracing = provider(config.tracing.collector, "croupier")
    return tracing, [traced(tracing, config.tracing.share, random.random)]
