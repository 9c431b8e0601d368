"""A remote V2 server, asked over gRPC. The request's bytes are passed on as they came."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

import grpc
import grpc.aio

from protos.errors import Code, DeadlineExceeded, InvalidArgument, ResourceExhausted, UpstreamError
from protos.grpc import MAX_MESSAGE
from protos.messages import (
    ModelInferRequest,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
)
from protos.v2 import SERVICE
from router.call import Call, Reply

_PASSED_ON = ("traceparent", "tracestate", "x-request-id")

_OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    # A restarted upstream is found again in seconds, not after grpc's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 30_000),
    # Each arm has its own connection: grpc would share one between equal channels.
    ("grpc.use_local_subchannel_pool", 1),
]

READY_SECONDS = 2.0


class Remote:
    """Serves an arm from a V2 gRPC server at `target`, "HOST:PORT". After `timeout_seconds` it has failed."""

    def __init__(self, target: str, model: str, version: str = "", *, timeout_seconds: float = 5.0) -> None:
        self._timeout = timeout_seconds
        self._target = target
        self._model = model
        self._version = version
        # Appended to a request, this overrides the name it carries: of equal fields, the last one counts.
        self._name = ModelInferRequest(model_name=model, model_version=version).SerializeToString()
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._infer: Any = self._channel.unary_unary(SERVICE + "ModelInfer")

    async def __call__(self, call: Call) -> Reply:
        metadata = [(name, value) for name in _PASSED_ON if (value := call.metadata.get(name)) and _is_sent(value)]
        left = inf if call.deadline is None else call.deadline - asyncio.get_running_loop().time()
        try:
            body: bytes = await self._infer(call.body + self._name, timeout=min(left, self._timeout), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if left > self._timeout and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                message = f"the upstream at {self._target} did not answer within {self._timeout:g} s"
                raise UpstreamError(message, Code.DEADLINE_EXCEEDED, retry=True) from None
            raise self._translated(error) from None
        return Reply(body)

    async def metadata(self) -> ModelMetadataResponse:
        request = ModelMetadataRequest(name=self._model, version=self._version)
        ask: Any = self._channel.unary_unary(SERVICE + "ModelMetadata")
        try:
            return ModelMetadataResponse.FromString(await ask(request.SerializeToString(), timeout=READY_SECONDS))
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from None

    async def ready(self) -> bool:
        request = ModelReadyRequest(name=self._model, version=self._version)
        ask: Any = self._channel.unary_unary(SERVICE + "ModelReady")
        try:
            answer = await ask(request.SerializeToString(), timeout=READY_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return ModelReadyResponse.FromString(answer).ready

    async def close(self) -> None:
        await self._channel.close(grace=30)

    def _translated(self, error: grpc.aio.AioRpcError) -> Exception:
        """The error in our words: what the client did wrong stays its fault; a model missing there is the arm's."""
        code, details = Code[error.code().name], error.details() or ""
        if code is Code.INVALID_ARGUMENT:
            return InvalidArgument(details)
        if code is Code.RESOURCE_EXHAUSTED:
            return ResourceExhausted(details)
        if code is Code.DEADLINE_EXCEEDED:
            return DeadlineExceeded("the deadline passed before the upstream answered")
        message = f"the upstream at {self._target} answered {code.name} for model {self._model!r}: {details}"
        return UpstreamError(
            message, code if code is Code.UNAVAILABLE else Code.INTERNAL, retry=code is Code.UNAVAILABLE
        )


def _is_sent(value: str) -> bool:
    """Whether gRPC takes a value as metadata: HTTP allows more, and the call must not fail for it."""
    return value.isascii() and value.isprintable()
