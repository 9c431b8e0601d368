"""The V2 protocol as a service: what a model server or a router has to answer, and its gRPC methods."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Protocol

from protos.errors import InvalidArgument, NotFound, Unimplemented
from protos.grpc import Methods, Rpc, Stream, Streaming, Unary
from protos.messages import (
    ModelConfig,
    ModelConfigRequest,
    ModelConfigResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ModelRepositoryParameter,
    ModelStatisticsRequest,
    ModelStatisticsResponse,
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
REPOSITORY_SERVICE = "/inference.model_repository.ModelRepositoryService/"  # deprecated by MLServer, and served by it
CONFIG = "config"
DEPENDENTS = "unload_dependents"

_SHOWN = 100  # characters of a client's word in a message


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


class TritonService(Protocol):
    """What Triton's clients ask beside it, of a server whose models are its own. Raises a CallError, as V2Service."""

    async def model_config(self, name: str, version: str) -> ModelConfig:
        """How a loaded model is served, in Triton's terms; raises NotFound."""

    async def statistics(self, name: str, version: str) -> ModelStatisticsResponse:
        """What was counted for the loaded versions of a model, or of all; raises NotFound for an unknown one."""

    async def load_as(self, name: str, config: str) -> None:
        """Loads a model as `V2Service.load` does, but with what a model configuration in JSON says instead."""


async def load_model(
    service: V2Service, triton: TritonService | None, name: str, parameters: Mapping[str, bool | int | str | bytes]
) -> None:
    """Loads a model with the parameters of a client's request. Raises InvalidArgument and Unimplemented."""
    for parameter in parameters:
        if parameter.startswith("file:"):
            raise Unimplemented("a model's files do not come with a request; put them into the repository and load it")
        if parameter != CONFIG:
            raise InvalidArgument(f"to load takes the parameter {CONFIG!r}, not {parameter[:_SHOWN]!r}")
    config = parameters.get(CONFIG)
    if config is None:
        await service.load(name)
    elif not isinstance(config, str):
        raise InvalidArgument(f"parameter {CONFIG!r} is a model configuration in JSON, as text")
    elif triton is None:
        raise Unimplemented(f"parameter {CONFIG!r} is not supported here: what is served is not configured by requests")
    else:
        await triton.load_as(name, config)


async def unload_model(service: V2Service, name: str, parameters: Mapping[str, bool | int | str | bytes]) -> None:
    """Unloads a model with the parameters of a client's request. Raises InvalidArgument and Unimplemented."""
    for parameter, value in parameters.items():
        if parameter != DEPENDENTS:
            raise InvalidArgument(f"to unload takes the parameter {DEPENDENTS!r}, not {parameter[:_SHOWN]!r}")
        if value:
            raise Unimplemented(f"parameter {DEPENDENTS!r} is not supported; unload each model by its name")
    await service.unload(name)


def one_by_one(service: V2Service) -> Streaming:
    """Answers a stream of inference requests with one answer to each."""

    async def stream(bodies: AsyncIterator[bytes], rpc: Rpc) -> AsyncGenerator[bytes, None]:
        async for body in bodies:
            yield await service.infer(body, rpc)

    return stream


def v2_methods(service: V2Service, triton: TritonService | None = None, stream: Streaming | None = None) -> Methods:
    """The gRPC methods of `service`, by path. Without `triton` those of Triton's extensions are unknown ones.

    `stream` answers streams of inference requests otherwise than one by one.
    """

    async def server_live(_body: bytes, _rpc: Rpc) -> bytes:
        return ServerLiveResponse(live=await service.live()).SerializeToString()

    async def server_ready(_body: bytes, _rpc: Rpc) -> bytes:
        return ServerReadyResponse(ready=await service.ready()).SerializeToString()

    async def server_metadata(_body: bytes, _rpc: Rpc) -> bytes:
        return (await service.server_metadata()).SerializeToString()

    async def model_ready(body: bytes, _rpc: Rpc) -> bytes:
        request = parse(ModelReadyRequest, body)
        try:
            ready = await service.model_ready(request.name, request.version)
        except NotFound:
            ready = False  # a no is what Triton's clients understand
        return ModelReadyResponse(ready=ready).SerializeToString()

    async def model_metadata(body: bytes, _rpc: Rpc) -> bytes:
        request = parse(ModelMetadataRequest, body)
        response: ModelMetadataResponse = await service.model_metadata(request.name, request.version)
        return response.SerializeToString()

    async def index(body: bytes, _rpc: Rpc) -> bytes:
        request = parse(RepositoryIndexRequest, body)
        response: RepositoryIndexResponse = await service.index(ready=request.ready)
        return response.SerializeToString()

    async def load(body: bytes, _rpc: Rpc) -> bytes:
        request = parse(RepositoryModelLoadRequest, body)
        await load_model(service, triton, request.model_name, _values(request.parameters))
        return RepositoryModelLoadResponse().SerializeToString()

    async def unload(body: bytes, _rpc: Rpc) -> bytes:
        request = parse(RepositoryModelUnloadRequest, body)
        await unload_model(service, request.model_name, _values(request.parameters))
        return RepositoryModelUnloadResponse().SerializeToString()

    methods: dict[str, Unary | Stream] = {
        SERVICE + "ServerLive": server_live,
        SERVICE + "ServerReady": server_ready,
        SERVICE + "ServerMetadata": server_metadata,
        SERVICE + "ModelReady": model_ready,
        SERVICE + "ModelMetadata": model_metadata,
        SERVICE + "ModelInfer": service.infer,
        SERVICE + "ModelStreamInfer": Stream(stream or one_by_one(service)),
        SERVICE + "RepositoryIndex": index,
        SERVICE + "RepositoryModelLoad": load,
        SERVICE + "RepositoryModelUnload": unload,
    }
    methods |= {
        REPOSITORY_SERVICE + name: methods[SERVICE + name]
        for name in ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")
    }
    if triton is not None:
        methods |= _triton_methods(triton)
    return methods


def _triton_methods(triton: TritonService) -> Methods:
    async def config(body: bytes, _rpc: Rpc) -> bytes:
        request = parse(ModelConfigRequest, body)
        told = await triton.model_config(request.name, request.version)
        return ModelConfigResponse(config=told).SerializeToString()

    async def statistics(body: bytes, _rpc: Rpc) -> bytes:
        request = parse(ModelStatisticsRequest, body)
        response: ModelStatisticsResponse = await triton.statistics(request.name, request.version)
        return response.SerializeToString()

    return {SERVICE + "ModelConfig": config, SERVICE + "ModelStatistics": statistics}


def _values(parameters: Mapping[str, ModelRepositoryParameter]) -> dict[str, bool | int | str | bytes]:
    return {name: getattr(value, str(value.WhichOneof("parameter_choice")), "") for name, value in parameters.items()}
