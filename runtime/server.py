"""An engine as a V2 service, and the application that serves it: gRPC, REST and /metrics."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from protos.grpc import MAX_MESSAGE, GrpcApp, Rpc
from protos.messages import (
    ModelInferRequest,
    ModelMetadataResponse,
    RepositoryIndexResponse,
    ServerMetadataResponse,
    parse,
)
from protos.rest import rest_app, v2_routes
from protos.serve import Asgi, one_port
from protos.v2 import v2_methods
from runtime.engine import Engine, State

NAME = "croupier"


class RuntimeService:
    """Answers V2 calls from an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stopping = False

    def stop(self) -> None:
        """Turns readiness off, so that no new work is sent here while the old is finished."""
        self._stopping = True

    async def live(self) -> bool:
        return True

    async def ready(self) -> bool:
        return not self._stopping and self._engine.ready()

    async def server_metadata(self) -> ServerMetadataResponse:
        return ServerMetadataResponse(name=NAME, version=_version(), extensions=["model_repository"])

    async def model_ready(self, name: str, version: str) -> bool:
        return self._engine.is_ready(name, version)

    async def model_metadata(self, name: str, version: str) -> ModelMetadataResponse:
        return self._engine.metadata(name, version)

    async def infer(self, body: bytes, rpc: Rpc) -> bytes:
        response = await self._engine.infer(parse(ModelInferRequest, body), deadline=rpc.deadline)
        return response.SerializeToString()

    async def index(self, *, ready: bool) -> RepositoryIndexResponse:
        response = RepositoryIndexResponse()
        for entry in await self._engine.index():
            if entry.state is State.READY or not ready:
                response.models.add(
                    name=entry.name, version=entry.version, state=entry.state.value, reason=entry.reason
                )
        return response

    async def load(self, name: str) -> None:
        await self._engine.load(name)

    async def unload(self, name: str) -> None:
        await self._engine.unload(name)


def application(service: RuntimeService, registry: CollectorRegistry, *, max_message: int = MAX_MESSAGE) -> Asgi:
    """The ASGI application of a runtime; messages and bodies over `max_message` bytes are refused."""
    grpc = GrpcApp(v2_methods(service), max_message=max_message)
    rest = rest_app([*v2_routes(service), metrics_route(registry)], max_body=max_message)
    return one_port(grpc, rest)


def metrics_route(registry: CollectorRegistry) -> Route:
    """GET /metrics, in the format that the scraper asks for."""

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    return Route("/metrics", metrics)


def _version() -> str:
    try:
        return version(NAME)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
