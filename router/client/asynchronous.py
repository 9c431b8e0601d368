"""The client for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc.aio
from google.protobuf.message import Message
from numpy.typing import NDArray

from protos.messages import (
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
    FeedbackResponse,
    ListRoutesRequest,
    ListRoutesResponse,
    ModelInferResponse,
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
from protos.v2 import SERVICE as V2
from router.client.messages import (
    Answer,
    Earned,
    Parameter,
    answer_of,
    decide_request,
    features_request,
    infer_request,
    metadata_of,
)
from router.trust import Trust, grpc_channel
from router.wire import SERVICE

M = TypeVar("M", bound=Message)


class AsyncClient:
    """What `Client` does, for asyncio. Failures are grpc.aio.AioRpcError, with the router's sentence."""

    def __init__(self, target: str, *, timeout: float = 10.0, key: str = "", tls: Trust | None = None) -> None:
        """`target` is "HOST:PORT", `key` says who asks, where the server wants to know; `tls` where it speaks that.

        Raises FailedPrecondition for files of `tls` that cannot be used.
        """
        self._channel = grpc_channel(grpc.aio, target, tls)
        self._timeout = timeout
        self._metadata = metadata_of(key)

    async def infer(
        self,
        route: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        unit: str = "",
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Answer:
        """Asks a route; `unit` is who is experimented on, `parameters` say more, for contexts to read."""
        request = infer_request(route, inputs, unit, parameters or {})
        return answer_of(await self._call(V2 + "ModelInfer", request, ModelInferResponse))

    async def decide(self, route: str, *, unit: str = "", context: Mapping[str, float | str] | None = None) -> Decision:
        """Asks which arm to use, without inferring; `context` are features of the route by name."""
        return await self._call(SERVICE + "Decide", decide_request(route, unit, context or {}), Decision)

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
        message = features_request(table, rows, forget)
        return (await self._call(SERVICE + "PutFeatures", message, PutFeaturesResponse)).rows

    async def switch(self, route: str, arm: str, *, on: bool, why: str, who: str = "") -> SwitchArmResponse:
        """Switches an arm off or on in all replicas; without a name, the learning of the route. How they stand then.

        What a guardrail has ejected or frozen comes back so, too. `who` and `why` go into the event log.
        """
        message = SwitchArmRequest(route=route, arm=arm, on=on, who=who, why=why)
        return await self._call(SERVICE + "SwitchArm", message, SwitchArmResponse)

    async def report(self, route: str, *, alpha: float | None = None) -> RouteReport:
        """What is known about a route; its intervals ever miss with probability alpha, 0.05 where none is said."""
        return await self._call(SERVICE + "Report", ReportRequest(route=route, alpha=alpha), RouteReport)

    async def explain(self, decision: str, *, show_unit: bool = False) -> Explanation:
        """Why a request went where it went."""
        message = ExplainRequest(decision_id=decision, show_unit=show_unit)
        return await self._call(SERVICE + "Explain", message, Explanation)

    async def evaluate(self, route: str, policy: str, *, alpha: float | None = None, most: int = 0) -> Evaluation:
        """What a policy would have earned at the newest decisions of a route's log, as many as `most`.

        In YAML, as under the key `policy`; or that, and beside it `floor`, `budget`, `half_life_seconds` or
        `warm_start`.
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
