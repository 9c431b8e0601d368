"""Requests, responses and errors as MLServer's models know them, to and from ours."""

from __future__ import annotations

import base64
from math import prod
from typing import Any, TypeVar

import numpy as np
import pydantic
from mlserver import types
from mlserver.errors import InvalidModelURI, MLServerError, ModelNotReady, ModelParametersMissing
from numpy.typing import NDArray

from protos.errors import (
    CallError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from protos.infer_json import parameters_of
from protos.messages import ModelInferRequest, ModelInferResponse
from protos.tensors import BASE64, DATATYPES, add_outputs, inputs_of

P = TypeVar("P", bound=pydantic.BaseModel)

_TEXT = DATATYPES["BYTES"]

# What MLServer's own errors mean. The others of its family carry an HTTP status, which is 400 unless they say.
_ERRORS: dict[type[MLServerError], type[CallError]] = {
    InvalidModelURI: FailedPrecondition,
    ModelParametersMissing: FailedPrecondition,
    ModelNotReady: Unavailable,
}
_STATUSES: dict[int, type[CallError]] = {
    400: InvalidArgument,
    404: NotFound,
    422: InvalidArgument,
    429: ResourceExhausted,
    503: Unavailable,
}
_CHOICES = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


def request_of(request: ModelInferRequest) -> types.InferenceRequest:
    """A request as MLServer's models know it, its data in flat lists. Raises InvalidArgument for what it cannot say."""
    arrays = inputs_of(request)
    inputs = [
        _made(
            types.RequestInput,
            each,
            f"input {each.name!r}",
            name=each.name,
            shape=each.shape[:],
            datatype=each.datatype,
            data=_data(each, arrays[each.name]),
        )
        for each in request.inputs
    ]
    outputs = [_made(types.RequestOutput, each, f"output {each.name!r}", name=each.name) for each in request.outputs]
    return _made(types.InferenceRequest, request, "request", id=request.id, inputs=inputs, outputs=outputs or None)


def _data(tensor: Any, array: NDArray[Any]) -> list[Any]:
    flat: list[Any] = array.ravel().tolist()
    if array.dtype == _TEXT and parameters_of(tensor.parameters).get("content_type") == BASE64:
        return [base64.b64encode(each) for each in flat]  # their codec expects to decode it
    return flat


def _made(kind: type[P], message: Any, where: str, **fields: Any) -> P:
    try:
        parameters = types.Parameters(**parameters_of(message.parameters)) if message.parameters else None
        return kind(parameters=parameters, **fields)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise InvalidArgument(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def fill(response: ModelInferResponse, answer: types.InferenceResponse, *, raw: bool) -> None:
    """Adds what a model answered to a response. Raises Internal where an output does not fit its shape or datatype."""
    add_outputs(response, {each.name: _array(each) for each in answer.outputs}, raw=raw)
    _tell(response.parameters, answer.parameters)
    for message, output in zip(response.outputs, answer.outputs, strict=True):
        _tell(message.parameters, output.parameters)


def _tell(parameters: Any, told: types.Parameters | None) -> None:
    for name, value in told.model_dump().items() if told else ():
        if choice := _CHOICES.get(type(value)):  # none for headers, a dict, for which the protocol has no word
            setattr(parameters[name], choice, value)


def _array(output: types.ResponseOutput) -> NDArray[Any]:
    """The data of an output, which is a list of any depth, or an array."""
    data = getattr(output.data, "root", output.data)
    dtype = DATATYPES.get(output.datatype)
    try:
        if dtype is None:
            raise ValueError(f"V2 has no datatype {output.datatype!r}")
        array = _texts(data, output.shape) if dtype == _TEXT else _numbers(data, dtype)
        return array.reshape(output.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise Internal(f"output {output.name!r} of the model: {error}") from None


def _numbers(data: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        return np.array(data, dtype)  # its codecs write NaN as None, which NumPy reads as NaN
    found = np.asarray(data)
    array = found.astype(dtype)
    if not np.array_equal(array, found):
        raise ValueError(f"it holds what {dtype} cannot")
    return array


def _texts(data: Any, shape: list[int]) -> NDArray[Any]:
    texts = np.array(data, np.object_).ravel()
    count = prod(shape)
    if len(texts) == 1 < count:  # all of an array of equally long bytes in one piece, as its NumpyCodec has it
        texts = np.frombuffer(texts[0], f"S{len(texts[0]) // count}").astype(np.object_)
    return texts


def error_of(error: MLServerError) -> CallError:
    """An error that a model raised, as one of ours."""
    kind = next((ours for theirs, ours in _ERRORS.items() if isinstance(error, theirs)), None)
    return (kind or _STATUSES.get(error.status_code, Internal))(str(error))
