"""The admin port: metrics, health and reload, for operators. Bound to loopback unless told otherwise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from router.service import RouterService


def admin_routes(
    service: RouterService, registry: CollectorRegistry, reload: Callable[[], Awaitable[None]]
) -> list[Route]:
    """`reload` serves the configuration file as it is now; it raises ConfigError when that cannot be."""

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def live(_request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(_request: Request) -> Response:
        is_ready = await service.ready()
        return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503)

    async def reloaded(_request: Request) -> Response:
        await reload()
        return JSONResponse({"routes": list(service.list_routes().routes)})

    return [
        Route("/metrics", metrics),
        Route("/live", live),
        Route("/ready", ready),
        Route("/reload", reloaded, methods=["POST"]),
    ]
