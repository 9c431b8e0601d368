"""What clients of the router ask: V2 calls on routes, decisions, feedback, and descriptions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from protos.errors import CallError, InvalidArgument, NotFound, Unimplemented
from protos.grpc import Methods, Rpc
from protos.messages import (
    DecideRequest,
    Decision,
    DescribeRouteRequest,
    FeedbackBatchRequest,
    FeedbackBatchResponse,
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
from router.call import Call, Handler, Reward, Vector
from router.credit import REWARD, metric_layout
from router.errors import StoreAway, UnknownRoute
from router.learner import Learner
from router.metrics import Metrics
from router.route import Route, Routes
from router.stores import DECISIONS, StoreError
from router.wire import SERVICE, UNIT, UNIT_HEADER

_log = logging.getLogger(__name__)

_UNIT_HEADER = UNIT_HEADER.encode()
_LONGEST_UNIT = 1024

MOST_ITEMS = 10_000
"""Rewards in one batch: more would keep the commit of everybody else's waiting."""


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
        call = Call(name, request, body, _unit(request, rpc), None, rpc.metadata, rpc.deadline)
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
        decision, _ = route.decide(_checked_unit(request.unit), None)
        await route.write_down(decision)
        arm = route.settings.arms[decision.arm]
        return Decision(
            decision_id=decision.id,
            route=route.name,
            arm=decision.arm,
            propensity=decision.propensity,
            model=arm.model,
            target=arm.target,
        )

    async def feedback(self, request: FeedbackRequest) -> FeedbackResponse:
        """Counts a reward; returns when it is durable."""
        (outcome,) = await self._learner.feedback([self._reward(request)])
        if isinstance(outcome, CallError):
            raise outcome
        return FeedbackResponse(route=outcome.route, arm=outcome.arm)

    async def feedback_batch(self, request: FeedbackBatchRequest) -> FeedbackBatchResponse:
        """Counts many rewards in one commit; each item has its own outcome."""
        if len(request.items) > MOST_ITEMS:
            raise InvalidArgument(f"items: at most {MOST_ITEMS} in a batch, got {len(request.items)}")
        response = FeedbackBatchResponse()
        for outcome in await self._learner.feedback([self._reward(item) for item in request.items]):
            if isinstance(outcome, CallError):
                response.outcomes.add(code=int(outcome.code), message=outcome.message)
            else:
                response.outcomes.add(route=outcome.route, arm=outcome.arm)
        return response

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
            policy=repr(route.policy),
            policy_version=route.version,
            reward_low=reward.low,
            reward_high=reward.high,
        )
        for arm, allowed, p in zip(route.arms, route.allowed, route.probabilities(), strict=True):
            settings = route.settings.arms[arm.name]
            shown = described.arms.add(
                name=arm.name, model=settings.model, target=settings.target, allowed=bool(allowed), probability=p
            )
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

    def _reward(self, request: FeedbackRequest) -> Reward:
        truth = request.truth if request.HasField("truth") else None
        return Reward(request.decision_id, request.reward, self._clock(), dict(request.metrics), truth)


def methods(service: RouterService) -> Methods:
    """The gRPC methods of both services, by path."""

    async def decide(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.decide(parse(DecideRequest, body))).SerializeToString()

    async def feedback(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.feedback(parse(FeedbackRequest, body))).SerializeToString()

    async def feedback_batch(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.feedback_batch(parse(FeedbackBatchRequest, body))).SerializeToString()

    async def list_routes(_body: bytes, _rpc: Rpc) -> bytes:
        return service.list_routes().SerializeToString()

    async def describe(body: bytes, _rpc: Rpc) -> bytes:
        return (await service.describe(parse(DescribeRouteRequest, body).route)).SerializeToString()

    return {
        **v2_methods(service),
        SERVICE + "Decide": decide,
        SERVICE + "Feedback": feedback,
        SERVICE + "FeedbackBatch": feedback_batch,
        SERVICE + "ListRoutes": list_routes,
        SERVICE + "DescribeRoute": describe,
    }


def _unit(request: ModelInferRequest, rpc: Rpc) -> str:
    if UNIT in request.parameters:
        value = request.parameters[UNIT]
        if value.WhichOneof("parameter_choice") != "string_param":
            raise InvalidArgument(f"parameter {UNIT!r} must be a string")
        return _checked_unit(value.string_param)
    for name, header in rpc.headers:
        if name == _UNIT_HEADER:
            try:
                return _checked_unit(header.decode())
            except UnicodeDecodeError:
                raise InvalidArgument(f"{UNIT_HEADER} must be UTF-8, as the parameter {UNIT!r} is") from None
    return ""


def _checked_unit(unit: str) -> str:
    if len(unit) > _LONGEST_UNIT:
        raise InvalidArgument(f"the unit has {len(unit)} characters; at most {_LONGEST_UNIT} are taken")
    return unit


def _fill(shown: RouteDescription.Tally, row: Vector | None) -> None:
    if row is not None:
        shown.n, shown.sum, shown.sum_of_squares = row
