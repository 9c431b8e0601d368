"""Inference in JSON: a ModelInferRequest from a JSON body, and JSON from a ModelInferResponse.

JSON has neither NaN nor infinity: in answers they become null, and null is read as NaN in FP16, BF16, FP32 and FP64.
"""

from __future__ import annotations

import re
from functools import cache
from math import prod
from types import GenericAlias
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct
from numpy.typing import NDArray

from protos.errors import FailedPrecondition, Internal, InvalidArgument
from protos.messages import ModelInferRequest, ModelInferResponse
from protos.tensors import DATATYPES, DIMENSIONS, add_inputs, outputs_of

Parameters = dict[str, bool | int | float | str]


class _Input(Struct, forbid_unknown_fields=True):
    name: str
    datatype: str
    shape: list[int]
    data: Raw  # read once its datatype is known
    parameters: Parameters | None = None


class _Output(Struct, forbid_unknown_fields=True):
    name: str
    parameters: Parameters | None = None


class _Request(Struct, forbid_unknown_fields=True):
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    id: str | None = None
    parameters: Parameters | None = None
    model_name: str | None = None
    model_version: str | None = None


# What stands for one element. Bounds end at int64, so an UINT64 too large is left to NumPy to refuse.
_ELEMENTS: dict[str, Any] = {
    "BOOL": bool,
    "UINT64": Annotated[int, Meta(ge=0)],
    "FP16": float | None,
    "BF16": float | None,
    "FP32": float | None,
    "FP64": float | None,
    "BYTES": str,
} | {
    name: Annotated[int, Meta(ge=int(np.iinfo(dtype).min), le=int(np.iinfo(dtype).max))]
    for name, dtype in DATATYPES.items()
    if dtype.kind in "iu" and name != "UINT64"
}
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_FLOATS = {"FP16", "BF16", "FP32", "FP64"}
_RAGGED = "data is ragged; lists beside each other must have the same length"
_OPENING = re.compile(rb"[\[\s]*")
_CHOICES = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
_INT64_MAX = 2**63 - 1

_request = msgspec.json.Decoder(_Request)


def request_of(body: bytes, model: str, version: str) -> ModelInferRequest:
    """What a JSON body asks of a model; BYTES are its strings in UTF-8. Raises InvalidArgument naming the tensor."""
    try:
        told = _request.decode(body)
    except _UNREADABLE as error:
        raise InvalidArgument(f"the body is not a V2 inference request: {error}") from None
    for what, inside, outside in (("name", told.model_name, model), ("version", told.model_version, version)):
        if inside and outside and inside != outside:
            raise InvalidArgument(f"the model's {what} is {inside!r} in the body and {outside!r} in the URL")
    request = ModelInferRequest(model_name=model, model_version=version or told.model_version, id=told.id)
    _fill(request.parameters, told.parameters, "the request")
    for given in told.inputs:
        add_inputs(request, {given.name: _array(given)}, raw=True)
        _fill(request.inputs[-1].parameters, given.parameters, f"input {given.name!r}")
    for wanted in told.outputs or ():
        _fill(request.outputs.add(name=wanted.name).parameters, wanted.parameters, f"output {wanted.name!r}")
    return request


def json_of(response: ModelInferResponse) -> bytes:
    """A response in JSON, its data flat. Raises FailedPrecondition for BYTES that are not UTF-8."""
    try:
        arrays = outputs_of(response)
    except InvalidArgument as error:
        raise Internal(f"the model's answer is inconsistent: {error.message}") from None
    told: dict[str, Any] = {"model_name": response.model_name}
    if response.model_version:
        told["model_version"] = response.model_version
    if response.id:
        told["id"] = response.id
    told |= _told(response.parameters)
    told["outputs"] = [
        {"name": output.name, "datatype": output.datatype, "shape": output.shape[:]}
        | _told(output.parameters)
        | {"data": _data(output.name, arrays[output.name])}
        for output in response.outputs
    ]
    return msgspec.json.encode(told)


def parameters_of(parameters: Any) -> dict[str, Any]:
    """A protobuf map of InferParameter in JSON's terms."""
    return {name: getattr(value, str(value.WhichOneof("parameter_choice")), None) for name, value in parameters.items()}


def _told(parameters: Any) -> dict[str, Any]:
    return {"parameters": parameters_of(parameters)} if parameters else {}


def _fill(message: Any, parameters: Parameters | None, where: str) -> None:
    for name, value in (parameters or {}).items():
        field = _CHOICES[type(value)]
        if field == "int64_param" and int(value) > _INT64_MAX:
            field = "uint64_param"
        try:
            setattr(message[name], field, value)
        except ValueError:
            raise InvalidArgument(f"parameter {name!r} of {where} is {value}, which 64 bits cannot hold") from None


def _array(tensor: _Input) -> NDArray[Any]:
    try:
        return _checked(tensor.data, tensor.datatype, tensor.shape)
    except InvalidArgument as error:
        raise InvalidArgument(f"input {tensor.name!r}: {error}") from None


def _checked(data: Raw, datatype: str, shape: list[int]) -> NDArray[Any]:
    if datatype not in DATATYPES:
        raise InvalidArgument(f"unknown datatype {datatype!r}; V2 has {', '.join(DATATYPES)}")
    if len(shape) > DIMENSIONS:
        raise InvalidArgument(f"its shape has {len(shape)} dimensions; {DIMENSIONS} are the most an array can have")
    if min(shape, default=0) < 0:
        raise InvalidArgument(f"shape {shape} has a negative dimension")
    array, count = _parsed(data, datatype), prod(shape)
    if array.ndim == 1:
        if array.size != count:
            raise InvalidArgument(f"shape {shape} takes {count} elements, data has {array.size}")
    # An empty list inside hides the dimensions behind it.
    elif array.size != count or list(array.shape) != (shape if count else shape[: array.ndim]):
        raise InvalidArgument(f"data is nested as {list(array.shape)}, its shape is {shape}")
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise InvalidArgument(f"shape {shape} is too large for an array: {error}") from None


def _parsed(data: Raw, datatype: str) -> NDArray[Any]:
    """The array that flat or nested lists spell, in the shape that they are nested."""
    dtype = DATATYPES[datatype]
    depth = _depth(data)
    try:
        nested = _decoder(datatype, depth).decode(data)
    except _UNREADABLE as error:
        raise InvalidArgument(str(error).replace("`$", "`data")) from None
    floating = datatype in _FLOATS
    try:
        array = np.array(nested, np.float64 if floating else dtype)
    except OverflowError:
        raise InvalidArgument(f"data holds integers beyond {datatype}") from None
    except ValueError:
        raise InvalidArgument(_RAGGED) from None
    if array.ndim != depth:  # strings are objects to NumPy, and so are lists of them
        raise InvalidArgument(_RAGGED)
    return _narrowed(array, datatype) if floating else array


def _depth(data: Raw) -> int:
    """How deep the lists are nested, told by the brackets that data starts with; at least one, data being a list."""
    opening = _OPENING.match(data)
    depth = max(1, opening.group().count(b"[") if opening else 0)
    if depth > DIMENSIONS:
        raise InvalidArgument(f"data is nested {depth} deep; {DIMENSIONS} are the most an array can have")
    return depth


@cache
def _decoder(datatype: str, depth: int) -> msgspec.json.Decoder[Any]:
    kind = _ELEMENTS[datatype]
    for _ in range(depth):
        kind = GenericAlias(list, (kind,))
    return msgspec.json.Decoder(kind)


def _narrowed(array: NDArray[np.float64], datatype: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        narrow = array.astype(DATATYPES[datatype])
    beyond = np.isinf(narrow)
    if beyond.any():
        raise InvalidArgument(f"data holds {array[beyond][0]}, which is beyond {datatype}")
    return narrow


def _data(name: str, array: NDArray[Any]) -> list[Any]:
    flat = array.ravel()
    if flat.dtype.kind == "O":
        try:
            return [element.decode() for element in flat]
        except UnicodeDecodeError:
            raise FailedPrecondition(f"output {name!r} is not UTF-8, which JSON needs; gRPC can carry it") from None
    # BF16 has no list of Python's floats to give.
    return (flat.astype(np.float32) if flat.dtype.kind == "V" else flat).tolist()
