"""Calls as bytes, without a client library between the test and the wire."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
import httpx
import numpy as np

from protos.errors import Code
from router import Client
from tests import plain_http

ROWS = np.array([[1.0, 2.0]], np.float32)
GRPC_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Refusal(NamedTuple):
    """How a server said no."""

    code: Code
    sentence: str


def ask_grpc(address: str, method: str, body: bytes) -> bytes:
    """The answer to one gRPC call. Raises grpc.RpcError."""
    with grpc.insecure_channel(address, options=GRPC_OPTIONS) as channel:
        call: Any = channel.unary_unary(method)
        answer: bytes = call(body, timeout=30)
        return answer


def ask_rest(address: str, path: str, body: bytes | str) -> httpx.Response:
    """The answer to one POST."""
    return plain_http.post(f"http://{address}{path}", content=body, timeout=30)


def refused_grpc(address: str, method: str, body: bytes) -> Refusal:
    """How a gRPC call is refused. Fails when it is not."""
    try:
        answer = ask_grpc(address, method, body)
    except grpc.RpcError as error:
        return refusal(error)
    raise AssertionError(f"{method} was answered: {answer!r}")


def refusal(error: Any) -> Refusal:
    """The status of a grpc.RpcError in our words."""
    return Refusal(Code[error.code().name], error.details())


def expect_answer(address: str, route: str) -> str:
    """Makes one good request, and checks that its answer is whole. Returns the arm."""
    with Client(address) as client:
        answer = client.infer(route, {"x": ROWS})
    assert answer.outputs["y"].shape == ROWS.shape
    assert answer.decision
    assert 0.0 < answer.propensity <= 1.0
    return answer.arm
