"""Requests, responses and errors as MLServer's models know them, to and from ours."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from math import prod
from typing import Any, TypeVar

import numpy as np
import pydantic
from mlserver import types
from mlserver.codecs import NumpyCodec
from mlserver.errors import InvalidModelURI, MLServerError, ModelNotReady, ModelParametersMissing
from mlserver.utils import generate_uuid
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from protos import binary
from protos.errors import KINDS, CallError, FailedPrecondition, Internal, InvalidArgument, Unavailable
from protos.grpc import Header, Rpc
from protos.infer_json import parameters_of, tell
from protos.infer_request import InferRequest
from protos.messages import ModelInferResponse
from protos.tensors import BASE64, DATATYPES, add_outputs, inputs_of
from runtime.formats.mlserver_numbers import numbers_of

P = TypeVar("P", bound=pydantic.BaseModel)

_TEXT = DATATYPES["BYTES"]

# What MLServer's own errors mean. The others of its family carry an HTTP status, which is 400 unless they say, as do
# FastAPI's.
_ERRORS: dict[type[MLServerError], type[CallError]] = {
    InvalidModelURI: FailedPrecondition,
    ModelParametersMissing: FailedPrecondition,
    ModelNotReady: Unavailable,
}
_STATUSES = {kind.code.http: kind for kind in KINDS.values()} | dict.fromkeys((400, 422), InvalidArgument)
_RESERVED = "grpc-"  # how the headers begin that gRPC keeps to itself
_OF_GRPC = {"content-type", "host", "te"}  # which it does not tell either
_OF_THE_SERVER = {
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    binary.HEADER.decode(),
}
# What HTTP has in no trailer, where our server would break the stream off for it.
_NO_TRAILERS = {
    b"authorization",
    b"cache-control",
    b"content-language",
    b"content-location",
    b"content-range",
    b"etag",
    b"expires",
    b"host",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"keep-alive",
    b"last-modified",
    b"pragma",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"www-authenticate",
}
_NAME = re.compile(r"[0-9a-z_.-]+")  # as gRPC has it, which is narrower than HTTP
_VALUE = re.compile(r"[ -~]*")
_UNSAID = 100  # names, after which no more are told
_unsaid: set[str] = set()
_log = logging.getLogger(__name__)


def request_of(request: InferRequest, rpc: Rpc | None = None) -> types.InferenceRequest:
    """A request as MLServer's models know it, its data in flat lists. Raises InvalidArgument for what it cannot say.

    Of the call that it came by they know the headers; and BYTES in JSON, which has texts alone, are `str` to them.
    """
    arrays = inputs_of(request)
    texts = rpc is not None and rpc.rest and binary.HEADER.decode() not in rpc.metadata
    inputs = [
        _made(
            types.RequestInput,
            each,
            f"input {each.name!r}",
            name=each.name,
            shape=each.shape[:],
            datatype=each.datatype,
            data=_data(each, arrays[each.name], texts=texts),
        )
        for each in request.inputs
    ]
    outputs = [_made(types.RequestOutput, each, f"output {each.name!r}", name=each.name) for each in request.outputs]
    given = request.id or (generate_uuid() if rpc is not None and rpc.rest else "")  # so that REST's calls have one
    made = _made(types.InferenceRequest, request, "request", id=given, inputs=inputs, outputs=outputs or None)
    if rpc is not None:
        made.parameters = made.parameters or types.Parameters()
        made.parameters.headers = _headers(rpc)
    return made


def _data(tensor: Any, array: NDArray[Any], *, texts: bool) -> list[Any]:
    flat: list[Any] = array.ravel().tolist()
    if array.dtype != _TEXT:
        return flat
    if parameters_of(tensor.parameters).get("content_type") == BASE64:
        flat = [base64.b64encode(each) for each in flat]  # their codec expects to decode it
    return [each.decode() for each in flat] if texts else flat


def _headers(rpc: Rpc) -> dict[str, str]:
    """What the caller sent beside the message, as MLServer tells it."""
    if rpc.rest:
        return dict(rpc.metadata)
    return {
        name: value for name, value in rpc.metadata.items() if name not in _OF_GRPC and not name.startswith(_RESERVED)
    }


def _made(kind: type[P], message: Any, where: str, **fields: Any) -> P:
    try:
        parameters = types.Parameters(**parameters_of(message.parameters)) if message.parameters else None
        return kind(parameters=parameters, **fields)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise InvalidArgument(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def fill(response: ModelInferResponse, answer: types.InferenceResponse, *, raw: bool) -> None:
    """Adds what a model answered to a response.

    Raises Internal where an output does not fit its shape or datatype, or has the name of another.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for output in answer.outputs:
        if output.name in arrays:
            raise Internal(
                f"model {response.model_name!r} returned two outputs {output.name!r}; each needs its own name"
            )
        arrays[output.name] = _array(output)
    try:
        add_outputs(response, arrays, raw=raw)
    except TypeError as error:  # BYTES that are neither bytes nor text
        raise Internal(f"the model's {error}") from None
    tell_of(response, answer)
    for message, output in zip(response.outputs, answer.outputs, strict=True):
        tell_of(message, output)


def tell_of(message: Any, theirs: Any) -> None:
    """Gives a message the parameters of what it is made from, but headers, lists and objects: V2 has no word for them.

    A list or an object is named in the log, once.
    """
    if not theirs.parameters:
        return
    values = theirs.parameters.model_dump()
    tell(message.parameters, values)
    for name, value in values.items():
        if isinstance(value, list | dict) and name != "headers" and name not in _unsaid and len(_unsaid) < _UNSAID:
            _unsaid.add(name)
            _log.warning("parameter %r of a model's answer is no text, number or truth, and is left out", name)


def headers_of(answer: types.InferenceResponse, rpc: Rpc | None) -> list[Header]:
    """The headers that a model answers with, over gRPC as far as trailers may have them.

    Raises Internal naming one that cannot be sent.
    """
    headers = _sendable((answer.parameters and answer.parameters.headers) or {})
    return headers if rpc is None or rpc.rest else [each for each in headers if each[0] not in _NO_TRAILERS]


def _sendable(told: Mapping[str, Any]) -> list[Header]:
    headers = [(name.lower(), value) for name, value in told.items()]
    for name, value in headers:
        if wrong := _unsendable(name, value):
            raise Internal(f"header {name!r} of the model: {wrong}")
    return [(name.encode(), value.strip().encode()) for name, value in headers]  # HTTP has no spaces around one


def _unsendable(name: str, value: Any) -> str:
    """Why a header cannot be sent; nothing if it can."""
    if name in _OF_THE_SERVER or name.startswith(_RESERVED):
        return "it is the server's to write"
    if not _NAME.fullmatch(name) or not isinstance(value, str) or not _VALUE.fullmatch(value):
        return "it cannot be sent, being no word, or no plain ASCII text"
    return ""


def _array(output: types.ResponseOutput) -> NDArray[Any]:
    """The data of an output, which is a list of any depth, or an array, in its shape; but [1] for a lone text."""
    data = getattr(output.data, "root", output.data)
    dtype = DATATYPES.get(output.datatype)
    try:
        if dtype is None:
            raise ValueError(f"V2 has no datatype {output.datatype!r}")
        return _texts(data, output) if dtype == _TEXT else numbers_of(data, output.datatype).reshape(output.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise Internal(f"output {output.name!r} of the model: {error}") from None


def _texts(data: Any, output: types.ResponseOutput) -> NDArray[Any]:
    texts = np.array(data, np.object_).ravel()
    count = prod(output.shape)
    if len(texts) == 1 < count:
        if (output.parameters and output.parameters.content_type) != NumpyCodec.ContentType:
            return texts  # one text, whose shape counts its letters: so MLServer's documentation has it
        texts = np.frombuffer(texts[0], f"S{len(texts[0]) // count}").astype(np.object_)  # an array in one piece
    return texts.reshape(output.shape)


def error_of(error: MLServerError | HTTPException) -> CallError:
    """An error that a model raised, as one of ours, with its HTTP status even where gRPC has no word for that.

    FastAPI's may have headers, which are told over HTTP, but for those that cannot be sent.
    """
    status = error.status_code
    message = str(error.detail if isinstance(error, HTTPException) else error)
    kind = next((ours for theirs, ours in _ERRORS.items() if isinstance(error, theirs)), None) or _STATUSES.get(status)
    if kind is None and status in range(400, 600):
        like = InvalidArgument if status < HTTPStatus.INTERNAL_SERVER_ERROR else Internal
        kind = type(like.__name__, (like,), {"http": int(status)})
    made = (kind or Internal)(message)
    if isinstance(error, HTTPException):
        headers = [(name.lower(), value) for name, value in (error.headers or {}).items()]
        made.headers = [(name.encode(), value.encode()) for name, value in headers if not _unsendable(name, value)]
    return made
