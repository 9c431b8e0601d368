"""What the table is written in: a request, by REST or by gRPC, and how its answers may differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.message import Message

from protos import messages
from protos.messages import ModelInferRequest
from protos.tensors import add_inputs

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Rest:
    """An HTTP request; it is a POST when it has a body."""

    path: str
    body: bytes | None = None
    headers: Headers = field(default_factory=dict)
    method: str = ""
    chunked: bool = False


@dataclass(frozen=True)
class Grpc:
    """A call, of one message or of a stream of them; a method is of the V2 service, or a whole path."""

    method: str
    bodies: Sequence[bytes]
    metadata: Headers = field(default_factory=dict)
    stream: bool = False
    compressed: bool = False


@dataclass(frozen=True)
class Together:
    """Calls that arrive at the same time; those at `cancelled` are given up before they are answered."""

    calls: Sequence[Grpc]
    cancelled: frozenset[int] = frozenset()


Request = Rest | Grpc | Together


@dataclass(frozen=True)
class Known:
    """A known difference: why it is right, and what is seen of it, in one of these ways; * stands for anything."""

    why: str
    seen: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A request, and the differences that its answers must show, beside those that are known of all answers."""

    name: str
    request: Request
    differs: tuple[Known, ...]


def case(name: str, request: Request, *differs: Known) -> Case:
    """A line of the table."""
    return Case(name, request, differs)


def get(path: str, **headers: str) -> Rest:
    """GET /v2 and the rest of a path."""
    return Rest(f"/v2{path}", headers=_named(headers))


def post(path: str, content: Any = None, **headers: str) -> Rest:
    """POST of JSON, or of bytes as they are, to /v2 and the rest of a path."""
    body = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
    return Rest(f"/v2{path}", body, {"content-type": "application/json", **_named(headers)})


def infer(model: str, *inputs: dict[str, Any], **more: Any) -> Rest:
    """POST of an inference request in JSON."""
    return post(f"/models/{model}/infer", {"inputs": list(inputs), **more})


def x(datatype: str, shape: list[Any], data: Any, name: str = "x", **parameters: Any) -> dict[str, Any]:
    """A tensor in JSON."""
    told = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    return {**told, "parameters": parameters} if parameters else told


def call(method: str, **fields: Any) -> Grpc:
    """A unary call: the fields of its request message."""
    return Grpc(method, [_message(method, fields).SerializeToString()])


def ask(model: str, *, raw: bool = False, version: str = "", **arrays: Any) -> ModelInferRequest:
    """An inference request for arrays or lists of numbers, the latter as FP32."""
    request = ModelInferRequest(model_name=model, model_version=version)
    given = {
        name: each if isinstance(each, np.ndarray) else np.array(each, np.float32) for name, each in arrays.items()
    }
    add_inputs(request, given, raw=raw)
    return request


def tensors(model: str, *inputs: dict[str, Any], raw: Sequence[bytes] = (), **more: Any) -> Grpc:
    """An inference call whose tensors are written out as the protocol's fields, right or wrong."""
    return send(ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raw, **more))


def send(*requests: ModelInferRequest, compressed: bool = False, stream: bool = False, **metadata: str) -> Grpc:
    """An inference call with requests made before."""
    method = "ModelStreamInfer" if stream else "ModelInfer"
    bodies = [each.SerializeToString() for each in requests]
    return Grpc(method, bodies, _named(metadata), stream=stream, compressed=compressed)


def _message(method: str, fields: dict[str, Any]) -> Message:
    message: Message = getattr(messages, f"{method.rpartition('/')[2]}Request")(**fields)
    return message


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
