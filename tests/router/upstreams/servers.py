"""What upstreams are asked in their tests: real servers of ours, a mesh that is a stand-in, and bare sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch

from protos.grpc import GrpcApp
from protos.messages import ModelInferResponse
from protos.rest import rest_app, v2_routes
from protos.serve import one_port
from protos.v2 import v2_methods
from router.call import Reply
from router.config import Arm
from router.upstreams import Upstream
from router.upstreams.connections import Connections
from tests.router.fakes import FakeUpstream
from tests.router.serving import FakeServer

MODEL = "double"


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def write_double(folder: Path) -> Path:
    """A folder with one model, "double", in one version, "7"."""
    home = folder / MODEL
    home.mkdir(parents=True)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.script(Double()).save(home / "model.pt")
    settings = {
        "name": MODEL,
        "implementation": "runtime.TorchScriptModel",
        "parameters": {"version": "7"},
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
    }
    (home / "model-settings.json").write_text(json.dumps(settings))
    return folder


def answer(reply: Reply) -> ModelInferResponse:
    return ModelInferResponse.FromString(reply.body)


@asynccontextmanager
async def upstream_of(arms: dict[str, Arm] | None = None, models: Any = None, **arm: Any) -> AsyncIterator[Upstream]:
    """The upstream of an arm with these settings, as a route would have it."""
    connections = Connections(models)
    try:
        yield await connections.upstream(Arm(**arm), arms)
    finally:
        await connections.close()


def both(model: FakeUpstream) -> tuple[FakeServer, Any]:
    """A server of one model, and its application: gRPC and REST."""
    server = FakeServer(model)
    return server, one_port(server.app, rest_app(v2_routes(server), max_body=1 << 26))


class Mesh:
    """Stands in for a Seldon mesh: it goes by the header `seldon-model`, and says which version it asked."""

    def __init__(self, model: FakeUpstream) -> None:
        self._inner = GrpcApp(v2_methods(FakeServer(model)))
        self.seen: list[dict[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append(headers)
        if headers.get("seldon-model") != MODEL:
            await send({"type": "http.response.start", "status": 404, "headers": [], "trailers": True})
            await send({"type": "http.response.body", "body": b""})
            await send({"type": "http.response.trailers", "headers": []})
            return

        async def routed(event: Any) -> None:
            if event["type"] == "http.response.start":
                event = {**event, "headers": [*event["headers"], (b"x-seldon-route", b":double_7:")]}
            await send(event)

        await self._inner(scope, receive, routed)


def free_address() -> str:
    """Where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@asynccontextmanager
async def listening(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A bare socket whose every connection is given to `handler`; yields "HOST:PORT"."""
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await handler(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
