"""One process that serves a folder of models: everything put together, served, drained and closed."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from protos.background import Background
from protos.ending import Limit
from protos.serve import Listener, serve
from protos.workers.crew import Crew
from runtime.devices import Devices
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.repository import Repository
from runtime.server import RuntimeService, application
from runtime.server_settings import ServerSettings
from runtime.shared_service import SharedService
from runtime.transports import Transports
from runtime.user_metrics import UserMetrics

STOP_SECONDS = 29.0  # from SIGTERM to the end of the process: Kubernetes kills it after 30
CLOSE_SECONDS = 2.0  # of them, for what comes after the calls in flight


class Started(msgspec.Struct, frozen=True):
    """What a process serves once all is loaded, and why it does not serve the rest."""

    addresses: list[str]
    served: list[str]
    failed: list[tuple[str, str]]


async def serve_models(
    models: Path,
    settings: ServerSettings,
    binds: Sequence[str],
    started: Callable[[Started], None],
    crew: Crew | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, listening at `binds` to what the settings' listeners speak, in their order.

    From then on it takes STOP_SECONDS at most, whatever a user's code still does, or it ends the process.
    `started` is told once what was to be loaded at the start is. With a `crew` this is one of several processes. Raises
    OSError, with the address as its file name, when one cannot be bound.
    """
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    registry.register(Devices())
    registry.register(UserMetrics())
    transports = Transports(registry) if settings.metrics_endpoint else None
    engine = Engine(Repository(models, os.environ), Metrics(registry))
    service = (
        SharedService(engine, settings.server_name, crew) if crew else RuntimeService(engine, settings.server_name)
    )
    stop_tracing = _trace(service, settings)  # before `application`, which takes the service's methods as they are
    background = Background()

    async def report(addresses: list[str]) -> None:
        failed = await loading if loading is not None else []
        served = dict.fromkeys(name for name, version in engine.all_served() if engine.is_ready(name, version))
        started(Started(addresses, list(served), [(entry.name, entry.reason) for entry in failed]))

    def listening(addresses: list[str]) -> None:
        background.start(report(addresses))

    limit = Limit(STOP_SECONDS)
    limit.unfinished = engine.unfinished

    def stopping() -> None:
        service.stop()
        limit.begin()

    listeners = [
        Listener(
            application(
                service,
                registry,
                speaks=speaks,
                metrics_path=settings.metrics_endpoint or "",
                gather=crew.scrape if crew else None,
                max_message=settings.max_message,
                pack=settings.gzip_enabled,
                transports=transports,
            ),
            bind,
            settings.root_path,
        )
        for bind, (_, speaks) in zip(binds, settings.listeners(), strict=True)
    ]
    # Not before it is known what the server itself answers: models may not claim that.
    loading = await engine.start_loading() if settings.load_models_at_startup else None
    try:
        if isinstance(service, SharedService):
            await service.join(registry, loading)
        await serve(*listeners, started=listening, stopping=stopping, drain_seconds=STOP_SECONDS - CLOSE_SECONDS)
    finally:
        await engine.close()
        await asyncio.to_thread(stop_tracing)
        # asyncio would wait without a limit for a thread that reads a disk which does not answer.
        await asyncio.get_running_loop().shutdown_default_executor()
        limit.end()


def set_up_log(*, debug: bool) -> None:
    """Has the log written to standard error, with what models write to MLServer's; with `debug`, all of both."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("mlserver").setLevel(logging.DEBUG if debug else logging.INFO)
    if debug:
        for ours in ("protos", "runtime"):
            logging.getLogger(ours).setLevel(logging.DEBUG)


def _trace(service: RuntimeService, settings: ServerSettings) -> Callable[[], None]:
    """Makes spans of the calls if the settings say where to; returns what sends the last of them."""
    if not settings.tracing_server:
        return lambda: None
    from protos.tracing import provider
    from runtime.tracing import traced, traced_stream

    tracing = provider(settings.tracing_server, settings.server_name)
    service.infer = traced(service.infer, tracing)  # type: ignore[assignment,method-assign]  # a layer around it
    service.answers = traced_stream(service.answers, tracing)  # type: ignore[assignment,method-assign]
    return tracing.shutdown
