"""V2 in JSON as a client writes and reads it: the other side of protos/infer_json.py."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from protos.errors import InvalidArgument
from protos.infer_json import choice_of, parameters_of
from protos.json_tensors import UNREADABLE, array_of, data_of
from protos.messages import ModelInferRequest, ModelInferResponse, ModelMetadataResponse
from protos.tensors import add_outputs, inputs_of


class _Output(Struct):
    name: str
    datatype: str
    shape: list[int]
    data: Raw


class _Answer(Struct):
    outputs: list[_Output]
    model_name: str = ""
    model_version: str | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


class _Tensor(Struct):
    name: str
    datatype: str
    shape: list[int]


class _Model(Struct):
    name: str = ""
    versions: list[str] | None = None
    platform: str | None = None
    inputs: list[_Tensor] | None = None
    outputs: list[_Tensor] | None = None


class _Error(Struct):
    error: str


def body_of(request: ModelInferRequest) -> bytes:
    """A request as JSON. Raises InvalidArgument for tensors that are wrong, or that JSON cannot say."""
    arrays = inputs_of(request)
    told: dict[str, Any] = {"id": request.id} if request.id else {}
    if request.parameters:
        told["parameters"] = parameters_of(request.parameters)
    told["inputs"] = [
        _described(given) | {"datatype": given.datatype, "shape": given.shape[:], "data": _data(given.name, arrays)}
        for given in request.inputs
    ]
    if request.outputs:
        told["outputs"] = [_described(wanted) for wanted in request.outputs]
    return msgspec.json.encode(told)


def response_of(body: bytes) -> ModelInferResponse:
    """The answer in a body. Raises ValueError for one that is none."""
    try:
        told = msgspec.json.decode(body, type=_Answer)
        response = ModelInferResponse(model_name=told.model_name, model_version=told.model_version, id=told.id)
        for name, value in (told.parameters or {}).items():
            if choice := choice_of(value):
                setattr(response.parameters[name], choice, value)
        arrays = {output.name: array_of(output.data, output.datatype, output.shape) for output in told.outputs}
        add_outputs(response, arrays, raw=True)
    except (*UNREADABLE, InvalidArgument, TypeError) as error:
        raise ValueError(f"not a V2 answer: {error}") from None
    return response


def metadata_of(body: bytes) -> ModelMetadataResponse:
    """What a model says about itself. Raises ValueError for a body that does not."""
    try:
        told = msgspec.json.decode(body, type=_Model)
    except UNREADABLE as error:
        raise ValueError(f"not the metadata of a V2 model: {error}") from None
    response = ModelMetadataResponse(name=told.name, versions=told.versions, platform=told.platform)
    for tensors, described in ((told.inputs, response.inputs), (told.outputs, response.outputs)):
        for tensor in tensors or ():
            described.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return response


def error_of(body: bytes) -> str:
    """The sentence in the body of a refusal; a part of the body where there is none."""
    try:
        return msgspec.json.decode(body, type=_Error).error
    except UNREADABLE:
        return body[:200].decode("utf-8", "replace")


def _described(tensor: Any) -> dict[str, Any]:
    parameters = parameters_of(tensor.parameters)
    return {"name": tensor.name} | ({"parameters": parameters} if parameters else {})


def _data(name: str, arrays: Any) -> list[Any]:
    return data_of(name, arrays[name], in_base64=False)
