"""The admin port: metrics, health, reload, answers and the dashboard, for operators. Loopback unless told otherwise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from router.edge.readiness import Readiness


def admin_routes(
    scrape: Callable[[], Awaitable[bytes]],
    readiness: Callable[[], Awaitable[Readiness]],
    reload: Callable[[], Awaitable[list[str]]],
) -> list[Route]:
    """`scrape` gives the metrics in Prometheus' text; `reload` serves the configuration file as it is now.

    `reload` returns what that changed, and raises ConfigError when it cannot be.
    """

    async def metrics(_request: Request) -> Response:
        return Response(await scrape(), media_type=CONTENT_TYPE_LATEST)

    async def live(_request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(_request: Request) -> Response:
        said = await readiness()
        return Response(msgspec.json.encode(said), said.status, media_type="application/json")

    async def reloaded(_request: Request) -> Response:
        return JSONResponse({"changed": await reload()})

    return [
        Route("/metrics", metrics),
        Route("/live", live),
        Route("/ready", ready),
        Route("/reload", reloaded, methods=["POST"]),
    ]
