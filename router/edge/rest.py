"""The Croupier service in JSON: the messages of croupier.proto, under the names of their fields."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from protos.errors import InvalidArgument
from protos.messages import (
    DecideRequest,
    DescribeRouteRequest,
    EvaluateRequest,
    EventsRequest,
    ExplainRequest,
    FeedbackBatchRequest,
    FeedbackRequest,
    ListRoutesRequest,
    ListRoutesResponse,
    PutFeaturesRequest,
    ReportRequest,
    SwitchArmRequest,
)
from router.answers.service import AnswerService
from router.edge.feature_service import FeatureService
from router.edge.refused_json import REFUSED, refusal
from router.edge.service import RouterService
from router.edge.switch_service import SwitchService

M = TypeVar("M", bound=Message)

_FLAGS = {"true": True, "false": False}  # of a query; protobuf reads numbers out of texts, but not these


def croupier_routes(service: RouterService) -> list[Route]:
    """The paths beside V2's."""

    async def list_routes(_request: ListRoutesRequest) -> ListRoutesResponse:
        return service.list_routes()

    async def describe(request: DescribeRouteRequest) -> Message:
        return await service.describe(request.route)

    return [
        Route("/v1/routes", _json(ListRoutesRequest, list_routes), methods=["GET"]),
        Route("/v1/routes/{route}", _json(DescribeRouteRequest, describe), methods=["GET"]),
        Route("/v1/routes/{route}/decide", _json(DecideRequest, service.decide), methods=["POST"]),
        Route("/v1/feedback", _json(FeedbackRequest, service.feedback), methods=["POST"]),
        Route("/v1/feedback/batch", _json(FeedbackBatchRequest, service.feedback_batch), methods=["POST"]),
    ]


def feature_routes(service: FeatureService) -> list[Route]:
    """The paths of the feature tables."""
    return [Route("/v1/features/{table}", _json(PutFeaturesRequest, service.put), methods=["POST"])]


def switch_routes(service: SwitchService) -> list[Route]:
    """The path of the switches."""
    return [Route("/v1/routes/{route}/switch", _json(SwitchArmRequest, service.switch), methods=["POST"])]


def answer_routes(service: AnswerService) -> list[Route]:
    """The paths of what people ask about routes."""
    routes = "/v1/routes/{route}"
    return [
        Route(f"{routes}/report", _json(ReportRequest, service.report), methods=["GET"]),
        Route(f"{routes}/evaluate", _json(EvaluateRequest, service.evaluate), methods=["POST"]),
        Route(f"{routes}/events", _json(EventsRequest, service.events), methods=["GET"]),
        Route("/v1/decisions/{decision_id}", _json(ExplainRequest, service.explain), methods=["GET"]),
    ]


def _json(kind: type[M], answer: Callable[[M], Awaitable[Message]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        asked = {name: _FLAGS.get(value, value) for name, value in request.query_params.items()}
        fields = await _object(request) | asked | request.path_params
        try:
            message = json_format.ParseDict(fields, kind())
        except REFUSED:
            raise InvalidArgument(refusal(fields, kind())) from None
        reply = await answer(message)
        return JSONResponse(
            json_format.MessageToDict(
                reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        )

    return endpoint


async def _object(request: Request) -> dict[str, Any]:
    body = await request.body()
    if not body:
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument("the body must be a JSON object")
    return value
