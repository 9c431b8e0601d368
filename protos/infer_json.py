"""Inference over HTTP: a ModelInferRequest from a body, and a body from a ModelInferResponse.

Tensors stand in the JSON (json_tensors.py), or as bytes behind it (binary.py). A parameter that is null is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw, Struct

from protos.binary import SIZE, Tail
from protos.errors import Internal, InvalidArgument
from protos.json_tensors import UNREADABLE, array_of, data_of
from protos.messages import ModelInferRequest, ModelInferResponse, with_buffers
from protos.tensors import BASE64, buffer_of, outputs_of

Parameters = dict[str, Any]  # each a bool, a number, a text or None, or it is refused by its name


NO_DATA = Raw()


class _Input(Struct, forbid_unknown_fields=True):
    name: str
    datatype: str
    shape: list[int]
    data: Raw = NO_DATA  # read once its datatype is known
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


_CHOICES = {bool: "bool_param", float: "double_param", str: "string_param"}
_INTEGERS = {"int64_param": range(-(2**63), 2**63), "uint64_param": range(2**64)}

_request = msgspec.json.Decoder(_Request)


@dataclass(frozen=True, slots=True)
class Form:
    """How the outputs of an answer are to travel: as bytes behind the JSON, or in it, BYTES perhaps in base64."""

    binary: bool = False  # where nothing is said about an output
    outputs: Mapping[str, bool] = field(default_factory=dict)  # those about which it is
    base64: frozenset[str] = frozenset()

    def is_binary(self, output: str) -> bool:
        """Whether this output is to be bytes behind the JSON."""
        return self.outputs.get(output, self.binary)


JSON = Form()
BINARY = Form(binary=True)


def request_of(body: bytes, model: str, version: str, json_size: int | None = None) -> tuple[bytes, Form]:
    """What a body asks of a model, as a serialized ModelInferRequest, and the form in which it wants the answer.

    The first `json_size` bytes are JSON, or all of them; strings in it are BYTES in UTF-8. Raises InvalidArgument
    naming the tensor.
    """
    try:
        told = _request.decode(body if json_size is None else memoryview(body)[:json_size])
    except UNREADABLE as error:
        hint = "; JSON has no NaN and no Infinity: write null" if b"NaN" in body or b"Infinity" in body else ""
        raise InvalidArgument(f"the body is not a V2 inference request: {error}{hint}") from None
    for what, inside, outside in (("name", told.model_name, model), ("version", told.model_version, version)):
        if inside and outside and inside != outside:
            raise InvalidArgument(f"the model's {what} is {inside!r} in the body and {outside!r} in the URL")
    request = ModelInferRequest(model_name=model, model_version=version or told.model_version, id=told.id)
    # What parameters say about the form of the bodies is taken out of them by _form and _buffer, so these come first:
    # the model gets the rest.
    form = _form(told) if told.outputs or told.parameters else JSON
    if told.parameters:
        _fill(request.parameters, told.parameters, "the request")
    tail = Tail(body, json_size)
    buffers = [_buffer(given, tail) for given in told.inputs]
    tail.end()
    for given in told.inputs:
        try:
            tensor = request.inputs.add(name=given.name, datatype=given.datatype, shape=given.shape)
        except ValueError:
            raise InvalidArgument(f"input {given.name!r}: shape {given.shape} is too large for an array") from None
        if given.parameters:
            _fill(tensor.parameters, given.parameters, f"input {given.name!r}")
    for wanted in told.outputs or ():
        _fill(request.outputs.add(name=wanted.name).parameters, wanted.parameters, f"output {wanted.name!r}")
    return with_buffers(request, ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER, buffers), form


def body_of(response: ModelInferResponse, form: Form = JSON) -> tuple[bytes, int | None]:
    """A response as a body, and how much of it is JSON, if not all. Numbers in JSON are flat.

    Raises FailedPrecondition for BYTES that JSON cannot say.
    """
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
    outputs: list[dict[str, Any]] = []
    told["outputs"] = outputs
    buffers = []
    for output in response.outputs:
        name, array = output.name, arrays[output.name]
        described: dict[str, Any] = {"name": name, "datatype": output.datatype, "shape": output.shape[:]}
        parameters = parameters_of(output.parameters)
        if form.is_binary(name):
            buffer = buffer_of(array)
            buffers.append(buffer)
            outputs.append(described | {"parameters": parameters | {SIZE: len(buffer)}})
            continue
        in_base64 = name in form.base64 and array.dtype.hasobject and parameters.get("content_type") != BASE64
        if in_base64:
            parameters["content_type"] = BASE64
        if parameters:
            described["parameters"] = parameters
        described["data"] = data_of(name, array, in_base64=in_base64)
        outputs.append(described)
    json = msgspec.json.encode(told)
    return (b"".join([json, *buffers]), len(json)) if buffers else (json, None)


def parameters_of(parameters: Any) -> dict[str, Any]:
    """A protobuf map of InferParameter in JSON's terms."""
    return {name: getattr(value, str(value.WhichOneof("parameter_choice")), None) for name, value in parameters.items()}


def tell(parameters: Any, values: Mapping[str, Any]) -> None:
    """Adds to a protobuf map of InferParameter what it has a word for: not lists, objects, null and huge integers."""
    for name, value in values.items():
        if choice := choice_of(value):
            setattr(parameters[name], choice, value)


def choice_of(value: Any) -> str | None:
    """The field of an InferParameter that holds a value; None where there is none."""
    if type(value) is int:  # and no bool
        return next((choice for choice, integers in _INTEGERS.items() if value in integers), None)
    return _CHOICES.get(type(value))


def _told(parameters: Any) -> dict[str, Any]:
    return {"parameters": parameters_of(parameters)} if parameters else {}


def _fill(message: Any, parameters: Parameters | None, where: str) -> None:
    for name, value in (parameters or {}).items():
        if value is None:
            continue
        choice = choice_of(value)
        if choice is None and isinstance(value, int):
            raise InvalidArgument(f"parameter {name!r} of {where} is {value}, which 64 bits cannot hold")
        if choice is None:
            kind = "a list" if isinstance(value, list) else "an object"
            raise InvalidArgument(f"parameter {name!r} of {where} is {kind}; it may be a text, a number, true or false")
        setattr(message[name], choice, value)


def _form(told: _Request) -> Form:
    """Takes out of a request what it says about the form of its answer."""
    binary = _taken(told.parameters, "binary_data_output", "the request")
    outputs, in_base64 = {}, set()
    for wanted in told.outputs or ():
        said = _taken(wanted.parameters, "binary_data", f"output {wanted.name!r}")
        if said is not None:
            outputs[wanted.name] = said
        if wanted.parameters and wanted.parameters.get("content_type") == BASE64:
            in_base64.add(wanted.name)
    return Form(bool(binary), outputs, frozenset(in_base64))


def _taken(parameters: Parameters | None, name: str, where: str) -> bool | None:
    value = parameters.pop(name, None) if parameters else None
    if not isinstance(value, bool | None):
        raise InvalidArgument(f"parameter {name!r} of {where} is {value!r}; it is true or false")
    return value


def _buffer(given: _Input, tail: Tail) -> bytes | memoryview:
    size = given.parameters.pop(SIZE, None) if given.parameters else None
    try:
        if size is None:
            if given.data is NO_DATA:
                raise InvalidArgument(f"it has neither `data` nor {SIZE} among its parameters")
            return buffer_of(array_of(given.data, given.datatype, given.shape))
        if given.data is not NO_DATA:
            raise InvalidArgument(f"it has both data and {SIZE}; send one")
        return tail.take(size)
    except InvalidArgument as error:
        raise InvalidArgument(f"input {given.name!r}: {error}") from None
