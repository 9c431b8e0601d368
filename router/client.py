"""The client library: ask a route, report what it earned. On grpcio, sync and async."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from numpy.typing import NDArray

from protos.grpc import MAX_MESSAGE
from protos.messages import (
    DecideRequest,
    Decision,
    DescribeRouteRequest,
    EvaluateRequest,
    Evaluation,
    EventsRequest,
    ExplainRequest,
    Explanation,
    FeedbackBatchRequest,
    FeedbackBatchResponse,
    FeedbackOutcome,
    FeedbackRequest,
    FeedbackResponse,
    ListRoutesRequest,
    ListRoutesResponse,
    ModelInferRequest,
    ModelInferResponse,
    PutFeaturesRequest,
    PutFeaturesResponse,
    ReportRequest,
    RouteDescription,
    RouteEvents,
    RouteReport,
    ServerReadyRequest,
    ServerReadyResponse,
    SwitchArmRequest,
    SwitchArmResponse,
)
from protos.tensors import add_inputs, outputs_of
from protos.v2 import SERVICE as V2
from router.wire import ARM, DECISION, PROPENSITY, SERVICE, UNIT

_OPTIONS = [("grpc.max_send_message_length", MAX_MESSAGE), ("grpc.max_receive_message_length", MAX_MESSAGE)]

M = TypeVar("M", bound=Message)

Parameter: TypeAlias = bool | int | float | str
"""Of a request."""

_CHOICES: Mapping[type, str] = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answered: the outputs of the arm it chose, and the decision to report a reward for."""

    outputs: dict[str, NDArray[Any]]
    decision: str
    arm: str
    propensity: float


@dataclass(frozen=True, slots=True)
class Earned:
    """What a decision earned, or part of it: a reward in the route's range, declared metrics, what really happened."""

    decision: str
    reward: float | None = None
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

    def __init__(self, target: str, *, timeout: float = 10.0, key: str = "") -> None:
        """`target` is "HOST:PORT", `key` says who asks, where the server wants to know."""
        self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        self._timeout = timeout
        self._metadata = _metadata(key)

    def infer(
        self,
        route: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        unit: str = "",
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Answer:
        """Asks a route; `unit` is who is experimented on, `parameters` say more, for contexts to read."""
        request = _request(route, inputs, unit, parameters or {})
        return _answer(self._call(V2 + "ModelInfer", request, ModelInferResponse))

    def decide(self, route: str, *, unit: str = "", context: Mapping[str, float | str] | None = None) -> Decision:
        """Asks which arm to use, without inferring; `context` are features of the route by name."""
        return self._call(SERVICE + "Decide", _decide(route, unit, context or {}), Decision)

    def reward(
        self,
        decision: str,
        reward: float | None = None,
        *,
        metrics: Mapping[str, float] | None = None,
        truth: float | None = None,
    ) -> FeedbackResponse:
        """Reports what a decision earned; returns once it is durable."""
        message = Earned(decision, reward, metrics or {}, truth).message()
        return self._call(SERVICE + "Feedback", message, FeedbackResponse)

    def rewards(self, items: list[Earned]) -> FeedbackBatchResponse:
        """Reports many in one commit; each has its own outcome."""
        message = FeedbackBatchRequest(items=[item.message() for item in items])
        return self._call(SERVICE + "FeedbackBatch", message, FeedbackBatchResponse)

    def reward_stream(self, items: Iterable[Earned]) -> Iterator[FeedbackOutcome]:
        """Reports as many as come; yields the outcome of each, in order, once it is durable. Has no timeout."""
        call: Any = self._channel.stream_stream(SERVICE + "FeedbackStream")
        bodies = (item.message().SerializeToString() for item in items)
        yield from map(FeedbackOutcome.FromString, call(bodies, metadata=self._metadata))

    def routes(self) -> list[str]:
        """The names of all routes."""
        return list(self._call(SERVICE + "ListRoutes", ListRoutesRequest(), ListRoutesResponse).routes)

    def describe(self, route: str) -> RouteDescription:
        """What is known about a route now."""
        return self._call(SERVICE + "DescribeRoute", DescribeRouteRequest(route=route), RouteDescription)

    def put_features(
        self, table: str, rows: Mapping[str, Mapping[str, float | str]], *, forget: Sequence[str] = ()
    ) -> int:
        """Says what is known about units, by column, and which to forget; how many rows, once that is durable."""
        message = _features(table, rows, forget)
        return self._call(SERVICE + "PutFeatures", message, PutFeaturesResponse).rows

    def switch(self, route: str, arm: str, *, on: bool, why: str, who: str = "") -> list[str]:
        """Switches an arm off or on in all replicas; without a name, the learning of the route. The arms that are out.

        What a guardrail has ejected or frozen comes back so, too. `who` and `why` go into the event log.
        """
        message = SwitchArmRequest(route=route, arm=arm, on=on, who=who, why=why)
        return list(self._call(SERVICE + "SwitchArm", message, SwitchArmResponse).off)

    def report(self, route: str, *, alpha: float | None = None) -> RouteReport:
        """What is known about a route; its intervals ever miss with probability alpha, 0.05 where none is said."""
        return self._call(SERVICE + "Report", ReportRequest(route=route, alpha=alpha), RouteReport)

    def explain(self, decision: str, *, show_unit: bool = False) -> Explanation:
        """Why a request went where it went."""
        message = ExplainRequest(decision_id=decision, show_unit=show_unit)
        return self._call(SERVICE + "Explain", message, Explanation)

    def evaluate(self, route: str, policy: str, *, alpha: float | None = None, most: int = 0) -> Evaluation:
        """What a policy would have earned at the newest decisions of a route's log, as many as `most`.

        In YAML, as under the key `policy`; or that, and beside it `floor`, `budget` or `half_life_seconds`.
        """
        message = EvaluateRequest(route=route, policy=policy, alpha=alpha, most=most)
        return self._call(SERVICE + "Evaluate", message, Evaluation)

    def events(self, route: str, *, after: str = "", most: int = 0) -> RouteEvents:
        """What was done to a route: the newest events, or those after one."""
        return self._call(SERVICE + "Events", EventsRequest(route=route, after=after, most=most), RouteEvents)

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
        return kind.FromString(call(message.SerializeToString(), timeout=self._timeout, metadata=self._metadata))


class AsyncClient:
    """The same for asyncio. Failures are grpc.aio.AioRpcError."""

    def __init__(self, target: str, *, timeout: float = 10.0, key: str = "") -> None:
        """`target` is "HOST:PORT", `key` says who asks, where the server wants to know."""
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._timeout = timeout
        self._metadata = _metadata(key)

    async def infer(
        self,
        route: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        unit: str = "",
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Answer:
        """Asks a route; `unit` is who is experimented on, `parameters` say more, for contexts to read."""
        request = _request(route, inputs, unit, parameters or {})
        return _answer(await self._call(V2 + "ModelInfer", request, ModelInferResponse))

    async def decide(self, route: str, *, unit: str = "", context: Mapping[str, float | str] | None = None) -> Decision:
        """Asks which arm to use, without inferring; `context` are features of the route by name."""
        return await self._call(SERVICE + "Decide", _decide(route, unit, context or {}), Decision)

    async def reward(
        self,
        decision: str,
        reward: float | None = None,
        *,
        metrics: Mapping[str, float] | None = None,
        truth: float | None = None,
    ) -> FeedbackResponse:
        """Reports what a decision earned; returns once it is durable."""
        message = Earned(decision, reward, metrics or {}, truth).message()
        return await self._call(SERVICE + "Feedback", message, FeedbackResponse)

    async def rewards(self, items: list[Earned]) -> FeedbackBatchResponse:
        """Reports many in one commit; each has its own outcome."""
        message = FeedbackBatchRequest(items=[item.message() for item in items])
        return await self._call(SERVICE + "FeedbackBatch", message, FeedbackBatchResponse)

    async def reward_stream(self, items: AsyncIterable[Earned]) -> AsyncIterator[FeedbackOutcome]:
        """Reports as many as come; yields the outcome of each, in order, once it is durable. Has no timeout."""
        call: Any = self._channel.stream_stream(SERVICE + "FeedbackStream")
        bodies = (item.message().SerializeToString() async for item in items)
        async for outcome in call(bodies, metadata=self._metadata):
            yield FeedbackOutcome.FromString(outcome)

    async def routes(self) -> list[str]:
        """The names of all routes."""
        return list((await self._call(SERVICE + "ListRoutes", ListRoutesRequest(), ListRoutesResponse)).routes)

    async def describe(self, route: str) -> RouteDescription:
        """What is known about a route now."""
        return await self._call(SERVICE + "DescribeRoute", DescribeRouteRequest(route=route), RouteDescription)

    async def put_features(
        self, table: str, rows: Mapping[str, Mapping[str, float | str]], *, forget: Sequence[str] = ()
    ) -> int:
        """Says what is known about units, by column, and which to forget; how many rows, once that is durable."""
        message = _features(table, rows, forget)
        return (await self._call(SERVICE + "PutFeatures", message, PutFeaturesResponse)).rows

    async def switch(self, route: str, arm: str, *, on: bool, why: str, who: str = "") -> list[str]:
        """Switches an arm off or on in all replicas; without a name, the learning of the route. The arms that are out.

        What a guardrail has ejected or frozen comes back so, too. `who` and `why` go into the event log.
        """
        message = SwitchArmRequest(route=route, arm=arm, on=on, who=who, why=why)
        return list((await self._call(SERVICE + "SwitchArm", message, SwitchArmResponse)).off)

    async def report(self, route: str, *, alpha: float | None = None) -> RouteReport:
        """What is known about a route; its intervals ever miss with probability alpha, 0.05 where none is said."""
        return await self._call(SERVICE + "Report", ReportRequest(route=route, alpha=alpha), RouteReport)

    async def explain(self, decision: str, *, show_unit: bool = False) -> Explanation:
        """Why a request went where it went."""
        message = ExplainRequest(decision_id=decision, show_unit=show_unit)
        return await self._call(SERVICE + "Explain", message, Explanation)

    async def evaluate(self, route: str, policy: str, *, alpha: float | None = None, most: int = 0) -> Evaluation:
        """What a policy would have earned at the newest decisions of a route's log, as many as `most`.

        In YAML, as under the key `policy`; or that, and beside it `floor`, `budget` or `half_life_seconds`.
        """
        message = EvaluateRequest(route=route, policy=policy, alpha=alpha, most=most)
        return await self._call(SERVICE + "Evaluate", message, Evaluation)

    async def events(self, route: str, *, after: str = "", most: int = 0) -> RouteEvents:
        """What was done to a route: the newest events, or those after one."""
        return await self._call(SERVICE + "Events", EventsRequest(route=route, after=after, most=most), RouteEvents)

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
        return kind.FromString(await call(message.SerializeToString(), timeout=self._timeout, metadata=self._metadata))


def _metadata(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),) if key else ()


def _decide(route: str, unit: str, context: Mapping[str, float | str]) -> DecideRequest:
    texts = {name: value for name, value in context.items() if isinstance(value, str)}
    numbers = {name: value for name, value in context.items() if not isinstance(value, str)}
    return DecideRequest(route=route, unit=unit, numbers=numbers, texts=texts)


def _request(
    route: str, inputs: Mapping[str, NDArray[Any]], unit: str, parameters: Mapping[str, Parameter]
) -> ModelInferRequest:
    request = ModelInferRequest(model_name=route)
    for name, value in parameters.items():
        setattr(request.parameters[name], _CHOICES[type(value)], value)
    if unit:
        request.parameters[UNIT].string_param = unit
    add_inputs(request, inputs, raw=True)
    return request


def _features(table: str, rows: Mapping[str, Mapping[str, float | str]], forget: Sequence[str]) -> PutFeaturesRequest:
    request = PutFeaturesRequest(table=table, forget=forget)
    for unit, row in rows.items():
        told = request.rows.add(unit=unit)
        for column, value in row.items():
            if isinstance(value, str):
                told.texts[column] = value
            else:
                told.numbers[column] = value
    return request


def _answer(response: ModelInferResponse) -> Answer:
    parameters = response.parameters
    return Answer(
        outputs_of(response),
        parameters[DECISION].string_param,
        parameters[ARM].string_param,
        parameters[PROPENSITY].double_param,
    )
