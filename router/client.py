"""The client library: ask a route, report what it earned. On grpcio, sync and async."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from numpy.typing import NDArray

from protos.grpc import MAX_MESSAGE
from protos.messages import (
    DecideRequest,
    Decision,
    DescribeRouteRequest,
    FeedbackBatchRequest,
    FeedbackBatchResponse,
    FeedbackRequest,
    FeedbackResponse,
    ListRoutesRequest,
    ListRoutesResponse,
    ModelInferRequest,
    ModelInferResponse,
    RouteDescription,
    ServerReadyRequest,
    ServerReadyResponse,
)
from protos.tensors import add_inputs, outputs_of
from protos.v2 import SERVICE as V2
from router.wire import ARM, DECISION, PROPENSITY, SERVICE, UNIT

_OPTIONS = [("grpc.max_send_message_length", MAX_MESSAGE), ("grpc.max_receive_message_length", MAX_MESSAGE)]

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answered: the outputs of the arm it chose, and the decision to report a reward for."""

    outputs: dict[str, NDArray[Any]]
    decision: str
    arm: str
    propensity: float


@dataclass(frozen=True, slots=True)
class Earned:
    """What a decision earned: a reward in the route's range, declared metrics, and what really happened."""

    decision: str
    reward: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    truth: float | None = None

    def message(self) -> FeedbackRequest:
        """The feedback as it is sent."""
        return FeedbackRequest(
            decision_id=self.decision, reward=self.reward, metrics=dict(self.metrics), truth=self.truth
        )


class Client:
    """Talks to a router and waits for its answers. Failures are grpc.RpcError, with the router's sentence.

    Timeouts are in seconds. Safe to share between threads.
    """

    def __init__(self, target: str, *, timeout: float = 10.0) -> None:
        """`target` is "HOST:PORT"."""
        self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        self._timeout = timeout

    def infer(self, route: str, inputs: Mapping[str, NDArray[Any]], *, unit: str = "") -> Answer:
        """Asks a route; `unit` is who is experimented on."""
        return _answer(self._call(V2 + "ModelInfer", _request(route, inputs, unit), ModelInferResponse))

    def decide(self, route: str, *, unit: str = "") -> Decision:
        """Asks which arm to use, without inferring."""
        return self._call(SERVICE + "Decide", DecideRequest(route=route, unit=unit), Decision)

    def reward(
        self, decision: str, reward: float, *, metrics: Mapping[str, float] | None = None, truth: float | None = None
    ) -> FeedbackResponse:
        """Reports what a decision earned; returns once it is durable."""
        message = Earned(decision, reward, metrics or {}, truth).message()
        return self._call(SERVICE + "Feedback", message, FeedbackResponse)

    def rewards(self, items: list[Earned]) -> FeedbackBatchResponse:
        """Reports many in one commit; each has its own outcome."""
        message = FeedbackBatchRequest(items=[item.message() for item in items])
        return self._call(SERVICE + "FeedbackBatch", message, FeedbackBatchResponse)

    def routes(self) -> list[str]:
        """The names of all routes."""
        return list(self._call(SERVICE + "ListRoutes", ListRoutesRequest(), ListRoutesResponse).routes)

    def describe(self, route: str) -> RouteDescription:
        """What is known about a route now."""
        return self._call(SERVICE + "DescribeRoute", DescribeRouteRequest(route=route), RouteDescription)

    def ready(self) -> bool:
        """Whether the router takes requests now."""
        return self._call(V2 + "ServerReady", ServerReadyRequest(), ServerReadyResponse).ready

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _call(self, method: str, message: Message, kind: type[M]) -> M:
        call: Any = self._channel.unary_unary(method)
        return kind.FromString(call(message.SerializeToString(), timeout=self._timeout))


class AsyncClient:
    """The same for asyncio. Failures are grpc.aio.AioRpcError."""

    def __init__(self, target: str, *, timeout: float = 10.0) -> None:
        """`target` is "HOST:PORT"."""
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._timeout = timeout

    async def infer(self, route: str, inputs: Mapping[str, NDArray[Any]], *, unit: str = "") -> Answer:
        """Asks a route; `unit` is who is experimented on."""
        return _answer(await self._call(V2 + "ModelInfer", _request(route, inputs, unit), ModelInferResponse))

    async def decide(self, route: str, *, unit: str = "") -> Decision:
        """Asks which arm to use, without inferring."""
        return await self._call(SERVICE + "Decide", DecideRequest(route=route, unit=unit), Decision)

    async def reward(
        self, decision: str, reward: float, *, metrics: Mapping[str, float] | None = None, truth: float | None = None
    ) -> FeedbackResponse:
        """Reports what a decision earned; returns once it is durable."""
        message = Earned(decision, reward, metrics or {}, truth).message()
        return await self._call(SERVICE + "Feedback", message, FeedbackResponse)

    async def rewards(self, items: list[Earned]) -> FeedbackBatchResponse:
        """Reports many in one commit; each has its own outcome."""
        message = FeedbackBatchRequest(items=[item.message() for item in items])
        return await self._call(SERVICE + "FeedbackBatch", message, FeedbackBatchResponse)

    async def routes(self) -> list[str]:
        """The names of all routes."""
        return list((await self._call(SERVICE + "ListRoutes", ListRoutesRequest(), ListRoutesResponse)).routes)

    async def describe(self, route: str) -> RouteDescription:
        """What is known about a route now."""
        return await self._call(SERVICE + "DescribeRoute", DescribeRouteRequest(route=route), RouteDescription)

    async def ready(self) -> bool:
        """Whether the router takes requests now."""
        return (await self._call(V2 + "ServerReady", ServerReadyRequest(), ServerReadyResponse)).ready

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, method: str, message: Message, kind: type[M]) -> M:
        call: Any = self._channel.unary_unary(method)
        return kind.FromString(await call(message.SerializeToString(), timeout=self._timeout))


def _request(route: str, inputs: Mapping[str, NDArray[Any]], unit: str) -> ModelInferRequest:
    request = ModelInferRequest(model_name=route)
    if unit:
        request.parameters[UNIT].string_param = unit
    add_inputs(request, inputs, raw=True)
    return request


def _answer(response: ModelInferResponse) -> Answer:
    parameters = response.parameters
    return Answer(
        outputs_of(response),
        parameters[DECISION].string_param,
        parameters[ARM].string_param,
        parameters[PROPENSITY].double_param,
    )
