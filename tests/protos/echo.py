"""A V2 service that answers an inference with its own inputs, and notes what it was asked."""

from __future__ import annotations

from protos.errors import FailedPrecondition, NotFound
from protos.grpc import Rpc
from protos.messages import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataResponse,
    RepositoryIndexResponse,
    ServerMetadataResponse,
    parse,
)
from protos.tensors import add_outputs, inputs_of


class Echo:
    """Serves one model, "echo"."""

    def __init__(self) -> None:
        self.is_ready = True
        self.asked: list[ModelInferRequest] = []
        self.rpc = Rpc([])
        self.only_ready: list[bool] = []

    async def live(self) -> bool:
        return True

    async def ready(self) -> bool:
        return self.is_ready

    async def server_metadata(self) -> ServerMetadataResponse:
        return ServerMetadataResponse(name="croupier", version="1", extensions=["a", "b"])

    async def model_ready(self, name: str, version: str) -> bool:
        self._known(name)
        return self.is_ready and version in {"", "1"}

    async def model_metadata(self, name: str, version: str) -> ModelMetadataResponse:
        self._known(name)
        told = ModelMetadataResponse(name=name, versions=["1"], platform="pytorch_torchscript")
        told.inputs.add(name="x", datatype="FP32", shape=[-1, 20]).parameters["unit"].string_param = "bp"
        told.outputs.add(name="x", datatype="FP32", shape=[-1, 20])
        return told

    async def infer(self, body: bytes, rpc: Rpc) -> bytes:
        request = parse(ModelInferRequest, body)
        self.asked.append(request)
        self.rpc = rpc
        rpc.trailing.append((b"croupier-decision", b"d-1"))
        self._known(request.model_name)
        response = ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        add_outputs(response, inputs_of(request), raw=True)
        for name, value in request.parameters.items():
            response.parameters[name].CopyFrom(value)
        return response.SerializeToString()

    async def index(self, *, ready: bool) -> RepositoryIndexResponse:
        self.only_ready.append(ready)
        told = RepositoryIndexResponse()
        told.models.add(name="echo", version="1", state="READY")
        return told

    async def load(self, name: str) -> None:
        self._known(name)

    async def unload(self, name: str) -> None:
        self._known(name)
        raise FailedPrecondition(f"model {name!r} cannot be unloaded")

    def _known(self, name: str) -> None:
        if name != "echo":
            raise NotFound(f"there is no model {name!r}")
