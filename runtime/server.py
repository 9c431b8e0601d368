"""An engine as a V2 service, and the application that serves it: gRPC, REST and /metrics."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing
from importlib.metadata import PackageNotFoundError, version
from typing import cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from protos.grpc import MAX_MESSAGE, GrpcApp, Rpc
from protos.infer_request import InferRequest, parse_infer
from protos.messages import (
    ModelConfig,
    ModelMetadataResponse,
    ModelStatisticsResponse,
    RepositoryIndexResponse,
    ServerMetadataResponse,
)
from protos.metrics import text_of
from protos.openapi import docs_routes
from protos.rest import rest_app, v2_routes
from protos.serve import Asgi, one_port
from protos.v2 import v2_methods
from runtime import devices
from runtime.catalogue import State
from runtime.endpoints import Endpoints
from runtime.engine import Engine
from runtime.served import Served, Streaming
from runtime.server_settings import Protocol
from runtime.transports import Transports
from runtime.triton import config_of, overridden, parse_config, statistics_of

NAME = "croupier"
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics"]


class RuntimeService:
    """Answers V2 calls from an engine, and what Triton's clients ask beside them."""

    def __init__(self, engine: Engine, name: str = NAME) -> None:
        self._engine = engine
        self._name = name
        self._stopping = False

    @property
    def endpoints(self) -> Endpoints:
        """The endpoints that models bring with them."""
        return self._engine.endpoints

    def stop(self) -> None:
        """Turns readiness off, so that no new work is sent here while the old is finished."""
        self._stopping = True

    async def live(self) -> bool:
        return not devices.lost  # so that whoever watches starts the process anew

    async def ready(self) -> bool:
        return not self._stopping and self._engine.ready()

    async def server_metadata(self) -> ServerMetadataResponse:
        return ServerMetadataResponse(name=self._name, version=_version(), extensions=EXTENSIONS)

    async def model_ready(self, name: str, version: str) -> bool:
        return self._engine.is_ready(name, version)

    async def model_metadata(self, name: str, version: str) -> ModelMetadataResponse:
        return self._engine.metadata(name, version)

    def admit(self, name: str, version: str) -> None:
        """Raises what `infer` would for a model that is not there or whose queue is full; before parsing a request."""
        self._engine.admit(name, version)

    async def infer(self, body: bytes, rpc: Rpc) -> bytes:
        response = await self._engine.infer(parse_infer(body), deadline=rpc.deadline, rpc=rpc)
        return response.SerializeToString()

    async def infer_stream(self, bodies: AsyncIterator[bytes], rpc: Rpc) -> AsyncGenerator[bytes, None]:
        """Answers a stream of requests: all of them by the first one's model, if it has a way of its own to do that."""
        first = await anext(bodies, None)
        if first is None:
            return
        request = parse_infer(first)
        self._engine.admit(request.model_name, request.model_version)
        served = self._engine.served(request.model_name, request.model_version)
        if not isinstance(served.servable, Streaming):
            yield await self.infer(first, rpc)
            async for body in bodies:
                yield await self.infer(body, rpc)
            return
        others = (parse_infer(body) async for body in bodies)
        async with aclosing(self.answers(served, request, others, rpc)) as answers:
            async for answer in answers:
                yield answer

    def answers(
        self, served: Served, first: InferRequest, others: AsyncIterator[InferRequest], rpc: Rpc
    ) -> AsyncGenerator[bytes, None]:
        """What a model answers that takes a stream of requests as a whole."""
        streaming = cast(Streaming, served.servable)
        return served.counted(streaming.infer_stream(first, others, rpc), rpc.deadline)

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

    async def load_as(self, name: str, config: str) -> None:
        wanted = parse_config(config)
        await self._engine.load(name, lambda settings: overridden(settings, wanted))

    async def unload(self, name: str) -> None:
        await self._engine.unload(name)

    async def model_config(self, name: str, version: str) -> ModelConfig:
        served = self._engine.served(name, version)
        return config_of(served.settings, served.servable)

    async def statistics(self, name: str, version: str) -> ModelStatisticsResponse:
        served = self._engine.all_served(name, version)
        return ModelStatisticsResponse(model_stats=[statistics_of(*key, each.metrics) for key, each in served.items()])


def application(
    service: RuntimeService,
    registry: CollectorRegistry,
    *,
    speaks: Collection[Protocol] = ("http", "grpc", "metrics"),
    metrics_path: str = "/metrics",
    gather: Callable[[], Awaitable[Collector]] | None = None,
    max_message: int = MAX_MESSAGE,
    pack: bool = True,
    transports: Transports | None = None,
) -> Asgi:
    """The ASGI application of a runtime; messages and bodies over `max_message` bytes are refused.

    With `gather` /metrics tells what that brings together, and not `registry`. With `pack` long REST answers are
    compressed for clients that take them so. `transports` counts what comes by each.
    """
    routes = v2_routes(service, service, service.admit, service.infer_stream) if "http" in speaks else []
    if transports is not None:
        routes = transports.rest(routes)
    if "metrics" in speaks:
        routes.append(metrics_route(registry, metrics_path, gather))
    if "http" in speaks:
        routes += docs_routes(NAME, _version(), routes, service.model_metadata)
        routes = service.endpoints.behind(routes, transports.rest if transports is not None else list)
    rest = rest_app(routes, max_body=max_message, pack=pack)
    if "grpc" not in speaks:
        return rest
    methods = v2_methods(service, service, service.infer_stream)
    if transports is not None:
        methods = transports.grpc(methods)
    return one_port(GrpcApp(methods, max_message=max_message), rest)


def metrics_route(
    registry: Collector, path: str = "/metrics", gather: Callable[[], Awaitable[Collector]] | None = None
) -> Route:
    """GET /metrics, in the format that the scraper asks for."""

    async def metrics(request: Request) -> Response:
        """What is counted, for Prometheus."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        told = registry if gather is None else await gather()
        return Response(await text_of(told, encode), headers={"content-type": content_type})

    return Route(path, metrics)


def _version() -> str:
    try:
        return version(NAME)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
