"""What clients of the router ask: V2 calls on routes, decisions, feedback, and descriptions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing

from protos.errors import CallError, InvalidArgument, NotFound, Unimplemented
from protos.grpc import Methods, Rpc, Stream
from protos.messages import (
    DecideRequest,
    Decision,
    DescribeRouteRequest,
    FeedbackBatchRequest,
    FeedbackBatchResponse,
    FeedbackOutcome,
    FeedbackRequest,
    FeedbackResponse,
    ListRoutesResponse,
    ModelInferRequest,
    ModelMetadataResponse,
    RepositoryIndexResponse,
    RouteDescription,
    ServerMetadataResponse,
    parse,
)
from protos.v2 import v2_methods
from router.answers.terms import terms
from router.call import REWARD, Call, Feedback, Handler, Vector
from router.edge.pipeline import pipelined
from router.errors import StoreAway, UnknownRoute
from router.learning.counting import Verdict
from router.learning.credit import metric_layout
from router.learning.learner import Learner
from router.metrics import Metrics
from router.route import Route, Routes
from router.stores import DECISIONS, StoreError
from router.wire import SERVICE, UNIT, UNIT_HEADER

_log = logging.getLogger(__name__)

_UNIT_HEADER = UNIT_HEADER.encode()
_LONGEST_UNIT = 1024

MOST_ITEMS = 10_000
"""Rewards in one batch: more would keep the commit of everybody else's waiting."""

MOST_STREAMED = 1000
"""Feedback of one stream that is on its way to a commit."""


class RouterService:
    """The V2 service, in which every route is a model, and the Croupier service beside it."""

    def __init__(
        self,
        routes: Routes,
        handlers: Callable[[], Mapping[str, Handler]],
        learner: Learner,
        metrics: Metrics,
        clock: Callable[[], float],
        version: str,
    ) -> None:
        """`handlers` gives the current handler of each route; `clock` seconds since the epoch."""
        self._routes = routes
        self._handlers = handlers
        self._learner = learner
        self._metrics = metrics
        self._clock = clock
        self._version = version
        self.draining = False

    # V2

    async def live(self) -> bool:
        return True

    async def ready(self) -> bool:
        return bool(self._routes.current) and not self.draining

    async def server_metadata(self) -> ServerMetadataResponse:
        return ServerMetadataResponse(name="croupier", version=self._version, extensions=["croupier.v1"])

    async def model_ready(self, name: str, version: str) -> bool:
        route = self._route(name, version)
        allowed = [arm.upstream for arm, is_allowed in zip(route.arms, route.allowed, strict=True) if is_allowed]
        return any(await asyncio.gather(*(upstream.ready() for upstream in allowed)))

    async def model_metadata(self, name: str, version: str) -> ModelMetadataResponse:
        route = self._route(name, version)
        failed: CallError | None = None
        for arm in route.arms:
            try:
                metadata = await arm.upstream.metadata()
            except CallError as error:
                failed = error
            else:
                described = ModelMetadataResponse(name=name, platform="croupier_route")
                described.inputs.extend(metadata.inputs)
                described.outputs.extend(metadata.outputs)
                return described
        raise failed or NotFound(f"route {name!r} has no arms")

    async def infer(self, body: bytes, rpc: Rpc) -> bytes:
        request = parse(ModelInferRequest, body)
        name = request.model_name
        handler = self._handlers().get(name)
        if handler is None:
            self._metrics.unknown_routes.inc()
            raise UnknownRoute(name, self._routes.current)
        if request.model_version:
            raise NotFound(f"route {name!r} has no versions; its arms may: leave model_version empty")
        call = Call(name, request, body, _unit(request, rpc), rpc.metadata, rpc.deadline)
        reply = await handler(call)
        rpc.trailing += reply.metadata
        return reply.body

    async def index(self, *, ready: bool) -> RepositoryIndexResponse:
        response = RepositoryIndexResponse()
        names = list(self._routes.current)
        for name, is_ready in zip(names, await asyncio.gather(*(self.model_ready(n, "") for n in names)), strict=True):
            if is_ready or not ready:
                reason = "" if is_ready else "no allowed arm is ready"
                response.models.add(name=name, state="READY" if is_ready else "UNAVAILABLE", reason=reason)
        return response

    async def load(self, name: str) -> None:
        raise Unimplemented(f"routes come from the configuration: change it and reload, to have {name[:100]!r}")

    async def unload(self, name: str) -> None:
        raise Unimplemented(f"routes come from the configuration: change it and reload, to drop {name[:100]!r}")

    # Croupier

    async def decide(self, request: DecideRequest) -> Decision:
        """Draws an arm for a client that calls the model itself."""
        route = self._route(request.route, "")
        known: dict[str, object] = {**request.numbers, **request.texts}
        if route.encoder is None and known:
            raise InvalidArgument(f"route {route.name!r} declares no context, so there is nothing to say about one")
        context = None if route.encoder is None else route.encoder.given(known)
        call = Call(route.name, ModelInferRequest(model_name=route.name), b"", _checked_unit(request.unit))
        decision, _ = route.decide(call, context)
        if (durable := route.write_down(decision)) is not None:
            await durable
        arm = route.settings.arms[decision.arm]
        return Decision(
            decision_id=decision.id,
            route=route.name,
            arm=decision.arm,
            propensity=decision.propensity,
            model=arm.model,
            target=arm.where,
        )

    async def feedback(self, request: FeedbackRequest) -> FeedbackResponse:
        """Counts what became of a decision; returns when it is durable."""
        (verdict,) = await self._learner.journal.feedback([self._feedback(request)])
        if isinstance(verdict, CallError):
            raise verdict
        return FeedbackResponse(route=verdict.decision.route, arm=verdict.decision.arm, counted=verdict.names)

    async def feedback_batch(self, request: FeedbackBatchRequest) -> FeedbackBatchResponse:
        """The same for many in one commit; each item has its own outcome."""
        if len(request.items) > MOST_ITEMS:
            raise InvalidArgument(f"items: at most {MOST_ITEMS} in a batch, got {len(request.items)}")
        verdicts = await self._learner.journal.feedback([self._feedback(item) for item in request.items])
        return FeedbackBatchResponse(outcomes=[_outcome(verdict) for verdict in verdicts])

    def feedback_stream(self, bodies: AsyncIterator[bytes]) -> AsyncGenerator[FeedbackOutcome]:
        """The same for as many as come, in order, `MOST_STREAMED` at a time. What is wrong with one ends no others."""

        async def counted(body: bytes) -> FeedbackOutcome:
            try:
                (verdict,) = await self._learner.journal.feedback([self._feedback(parse(FeedbackRequest, body))])
            except CallError as error:
                return _outcome(error)
            return _outcome(verdict)

        return pipelined(bodies, counted, most=MOST_STREAMED)

    def list_routes(self) -> ListRoutesResponse:
        """The names of all routes."""
        return ListRoutesResponse(routes=list(self._routes.current))

    async def describe(self, name: str) -> RouteDescription:
        """What a route is and what all replicas have learnt about it."""
        route = self._route(name, "")
        try:
            sums = await self._learner.sums(name)
        except StoreError as error:
            _log.error("route %s cannot be described: %s", name, error)
            raise StoreAway from None
        reward = route.settings.reward
        described = RouteDescription(
            route=name,
            policy=terms(route.in_force),
            policy_version=route.version,
            reward_low=reward.low,
            reward_high=reward.high,
        )
        probabilities = route.probabilities()
        for index, (arm, allowed) in enumerate(zip(route.arms, route.allowed, strict=True)):
            settings = route.settings.arms[arm.name]
            shown = described.arms.add(
                name=arm.name, model=settings.model, target=settings.where, allowed=bool(allowed)
            )
            if probabilities is not None:
                shown.probability = probabilities[index]
            decisions = sums.get((DECISIONS, arm.name))
            shown.decisions = 0.0 if decisions is None else decisions[0]
            _fill(shown.reward, sums.get((REWARD, arm.name)))
            for metric in route.settings.metrics:
                _fill(shown.metrics[metric], sums.get((metric_layout(metric), arm.name)))
        return described

    def _route(self, name: str, version: str) -> Route:
        route = self._routes.current.get(name)
        if route is None:
            raise UnknownRoute(name, self._routes.current)
        if version:
            raise NotFound(f"route {name!r} has no versions; its arms may: leave the version empty")
        return route

    def _feedback(self, request: FeedbackRequest) -> Feedback:
        reward = request.reward if request.HasField("reward") else None
        truth = request.truth if request.HasField("truth") else None
        return Feedback(request.decision_id, self._clock(), reward, dict(request.metrics), truth)


def methods(service: RouterService) -> Methods:
    """The gRPC methods of both services, by path."""

    async def decide(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.decide(parse(DecideRequest, body))).SerializeToString()

    async def feedback(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.feedback(parse(FeedbackRequest, body))).SerializeToString()

    async def feedback_batch(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.feedback_batch(parse(FeedbackBatchRequest, body))).SerializeToString()

    async def feedback_stream(bodies: AsyncIterator[bytes], _rpc: Rpc) -> AsyncGenerator[bytes, None]:
        async with aclosing(service.feedback_stream(bodies)) as outcomes:
            async for outcome in outcomes:
                yield outcome.SerializeToString()

    async def list_routes(_body: bytes, _rpc: Rpc) -> bytes:
        return service.list_routes().SerializeToString()

    async def describe(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.describe(parse(DescribeRouteRequest, body).route)).SerializeToString()

    return {
        **v2_methods(service),
        SERVICE + "Decide": decide,
        SERVICE + "Feedback": feedback,
        SERVICE + "FeedbackBatch": feedback_batch,
        SERVICE + "FeedbackStream": Stream(feedback_stream),
        SERVICE + "ListRoutes": list_routes,
        SERVICE + "DescribeRoute": describe,
    }


def _outcome(verdict: Verdict) -> FeedbackOutcome:
    if isinstance(verdict, CallError):
        return FeedbackOutcome(code=int(verdict.code), message=verdict.message)
    return FeedbackOutcome(route=verdict.decision.route, arm=verdict.decision.arm, counted=verdict.names)


def _unit(request: ModelInferRequest, rpc: Rpc) -> str:
    if UNIT in request.parameters:
        value = request.parameters[UNIT]
        if value.WhichOneof("parameter_choice") != "string_param":
            raise InvalidArgument(f"parameter {UNIT!r} must be a string")
        return _checked_unit(value.string_param)
    told = rpc.metadata.raw.get(_UNIT_HEADER)
    if told is None:
        return ""
    try:
        return _checked_unit(told.decode())
    except UnicodeDecodeError:
        raise InvalidArgument(f"{UNIT_HEADER} must be UTF-8, as the parameter {UNIT!r} is") from None


def _checked_unit(unit: str) -> str:
    if len(unit) > _LONGEST_UNIT:
        raise InvalidArgument(f"the unit has {len(unit)} characters; at most {_LONGEST_UNIT} are taken")
    return unit


def _fill(shown: RouteDescription.Tally, row: Vector | None) -> None:
    if row is not None:
        shown.n, shown.sum, shown.sum_of_squares = row
