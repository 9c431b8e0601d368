"""A real gRPC server on a free port of this machine, for what has to be asked over the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from h2corn import Config, Server

from protos.errors import NotFound, Unimplemented
from protos.grpc import GrpcApp, Rpc
from protos.messages import (
    ModelInferRequest,
    ModelMetadataResponse,
    RepositoryIndexResponse,
    ServerMetadataResponse,
    parse,
)
from protos.v2 import v2_methods
from router.call import Call
from tests.router.fakes import FakeUpstream


class FakeServer:
    """A V2 service whose models are upstreams; what it was asked is in their calls."""

    def __init__(self, *models: FakeUpstream) -> None:
        self.models = {model.model: model for model in models}
        self.rpcs: list[Rpc] = []

    def _model(self, name: str) -> FakeUpstream:
        if name not in self.models:
            raise NotFound(f"no model {name!r}")
        return self.models[name]

    async def live(self) -> bool:
        return True

    async def ready(self) -> bool:
        return True

    async def server_metadata(self) -> ServerMetadataResponse:
        return ServerMetadataResponse(name="fake")

    async def model_ready(self, name: str, version: str) -> bool:
        return await self._model(name).ready()

    async def model_metadata(self, name: str, version: str) -> ModelMetadataResponse:
        return await self._model(name).metadata()

    async def infer(self, body: bytes, rpc: Rpc) -> bytes:
        self.rpcs.append(rpc)
        request = parse(ModelInferRequest, body)
        model = self._model(request.model_name)
        return (await model(Call(request.model_name, request, body, deadline=rpc.deadline))).body

    async def index(self, *, ready: bool) -> RepositoryIndexResponse:
        raise Unimplemented("not here")

    async def load(self, name: str) -> None:
        raise Unimplemented("not here")

    async def unload(self, name: str) -> None:
        raise Unimplemented("not here")

    @property
    def app(self) -> GrpcApp:
        return GrpcApp(v2_methods(self))


@asynccontextmanager
async def serving(app: Any, bind: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serves an application in this event loop; yields "HOST:PORT"."""
    server = Server(
        app, Config(bind=(bind,), grpc=True, access_log=False, lifespan="off", timeout_graceful_shutdown=0.1)
    )
    running = asyncio.create_task(server.serve())
    await server.wait_started()
    try:
        yield server.addresses[0]
    finally:
        server.shutdown()
        await running
