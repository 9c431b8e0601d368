"""The V2 protocol as a service: what a model server or a router has to answer, and its gRPC methods."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from protos.grpc import Methods, Rpc, Stream
from protos.messages import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyResponse,
    parse,
)

SERVICE = "/inference.GRPCInferenceService/"


class V2Service(Protocol):
    """What V2 clients ask. Every method may raise a CallError; an empty version means the server's choice."""

    async def live(self) -> bool:
        """Whether the process answers."""

    async def ready(self) -> bool:
        """Whether it can take inference requests now."""

    async def server_metadata(self) -> ServerMetadataResponse:
        """Name, version and extensions of the server."""

    async def model_ready(self, name: str, version: str) -> bool:
        """Whether this model can infer now; raises NotFound for an unknown one."""

    async def model_metadata(self, name: str, version: str) -> ModelMetadataResponse:
        """Inputs and outputs of a model; raises NotFound for an unknown one."""

    async def infer(self, body: bytes, rpc: Rpc) -> bytes:
        """Answers a serialized ModelInferRequest with a serialized ModelInferResponse."""

    async def index(self, *, ready: bool) -> RepositoryIndexResponse:
        """The models of the repository and their states; only ready ones if asked."""

    async def load(self, name: str) -> None:
        """Loads or reloads a model of the repository; returns when it can infer."""

    async def unload(self, name: str) -> None:
        """Takes a model out of service; raises NotFound for an unknown one."""


def v2_methods(service: V2Service) -> Methods:
    """The gRPC methods of `service`, by path."""

    async def server_live(_body: bytes, _rpc: Rpc) -> bytes:
        return ServerLiveResponse(live=await service.live()).SerializeToString()

    async def server_ready(_body: bytes, _rpc: Rpc) -> bytes:
        return ServerReadyResponse(ready=await service.ready()).SerializeToString()

    async def server_metadata(_body: bytes, _rpc: Rpc) -> bytes:
        return (await service.server_metadata()).SerializeToString()

    async def model_ready(body: bytes, _rpc: Rpc) -> bytes:
        request = parse(ModelReadyRequest, body)
        return ModelReadyResponse(ready=await service.model_ready(request.name, request.version)).SerializeToString()

    async def model_metadata(body: bytes, _rpc: Rpc) -> bytes:
        request = parse(ModelMetadataRequest, body)
        response: ModelMetadataResponse = await service.model_metadata(request.name, request.version)
        return response.SerializeToString()

    async def stream(bodies: AsyncIterator[bytes], rpc: Rpc) -> AsyncGenerator[bytes, None]:
        async for body in bodies:
            yield await service.infer(body, rpc)

    async def index(body: bytes, _rpc: Rpc) -> bytes:
        request = parse(RepositoryIndexRequest, body)
        response: RepositoryIndexResponse = await service.index(ready=request.ready)
        return response.SerializeToString()

    async def load(body: bytes, _rpc: Rpc) -> bytes:
        await service.load(parse(RepositoryModelLoadRequest, body).model_name)
        return RepositoryModelLoadResponse().SerializeToString()

    async def unload(body: bytes, _rpc: Rpc) -> bytes:
        await service.unload(parse(RepositoryModelUnloadRequest, body).model_name)
        return RepositoryModelUnloadResponse().SerializeToString()

    return {
        SERVICE + "ServerLive": server_live,
        SERVICE + "ServerReady": server_ready,
        SERVICE + "ServerMetadata": server_metadata,
        SERVICE + "ModelReady": model_ready,
        SERVICE + "ModelMetadata": model_metadata,
        SERVICE + "ModelInfer": service.infer,
        SERVICE + "ModelStreamInfer": Stream(stream),
        SERVICE + "RepositoryIndex": index,
        SERVICE + "RepositoryModelLoad": load,
        SERVICE + "RepositoryModelUnload": unload,
    }
