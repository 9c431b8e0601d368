"""The V2 protocol in JSON over HTTP: its routes, and the application around any routes.

Whatever goes wrong is answered with {"error": "a sentence"}.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protos.errors import CallError, InvalidArgument, ResourceExhausted, Unimplemented
from protos.grpc import Rpc
from protos.infer_json import json_of, parameters_of, request_of
from protos.messages import ModelInferResponse, ModelMetadataResponse
from protos.v2 import V2Service

_log = logging.getLogger(__name__)

_UNAVAILABLE = 503
_GZIP_WINDOW = 31


class _Index(msgspec.Struct, forbid_unknown_fields=True):
    ready: bool = False


def v2_routes(service: V2Service) -> list[Route]:
    """The REST endpoints of `service`. The trailing metadata of an inference becomes headers of its response."""

    async def live(_request: Request) -> Response:
        return _health("live", good=await service.live())

    async def ready(_request: Request) -> Response:
        return _health("ready", good=await service.ready())

    async def server(_request: Request) -> Response:
        told = await service.server_metadata()
        return answer({"name": told.name, "version": told.version, "extensions": list(told.extensions)})

    async def model(request: Request) -> Response:
        told = await service.model_metadata(*_model(request))
        return answer(
            {
                "name": told.name,
                "versions": list(told.versions),
                "platform": told.platform,
                "inputs": [_tensor(each) for each in told.inputs],
                "outputs": [_tensor(each) for each in told.outputs],
                "parameters": parameters_of(told.parameters),
            }
        )

    async def model_ready(request: Request) -> Response:
        name, version = _model(request)
        return _health("ready", good=await service.model_ready(name, version), name=name)

    async def infer(request: Request) -> Response:
        rpc = Rpc(request.scope["headers"])
        try:
            if "inference-header-content-length" in request.headers:
                raise Unimplemented("binary tensors are not understood in HTTP bodies; send JSON, or use gRPC")
            asked = request_of(await request.body(), *_model(request))
            reply = await service.infer(asked.SerializeToString(), rpc)
            response = Response(json_of(ModelInferResponse.FromString(reply)), media_type="application/json")
        except CallError as error:
            response = refusal(error)
        for name, value in rpc.trailing:
            response.headers.append(name, value)
        return response

    async def index(request: Request) -> Response:
        told = await service.index(ready=_index(await request.body()).ready)
        return answer(
            [
                {"name": each.name, "version": each.version, "state": each.state, "reason": each.reason}
                for each in told.models
            ]
        )

    async def load(request: Request) -> Response:
        await service.load(request.path_params["model"])
        return answer({})

    async def unload(request: Request) -> Response:
        await service.unload(request.path_params["model"])
        return answer({})

    def versioned(suffix: str, endpoint: Callable[[Request], Awaitable[Response]], method: str) -> list[Route]:
        paths = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        return [Route(path + suffix, endpoint, methods=[method]) for path in paths]

    return [
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2", server),
        *versioned("", model, "GET"),
        *versioned("/ready", model_ready, "GET"),
        *versioned("/infer", infer, "POST"),
        Route("/v2/repository/index", index, methods=["POST"]),
        Route("/v2/repository/models/{model}/load", load, methods=["POST"]),
        Route("/v2/repository/models/{model}/unload", unload, methods=["POST"]),
    ]


def rest_app(routes: Iterable[Route], *, max_body: int) -> ASGIApp:
    """The application that serves `routes`; bodies over `max_body` bytes, as sent or once unzipped, are refused."""
    app = Starlette(
        routes=list(routes),
        exception_handlers={CallError: _refused, HTTPException: _unrouted, Exception: _failed},
    )
    return _Edge(app, max_body)


def answer(content: Any, status: int = 200) -> Response:
    """`content` as a JSON response."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def refusal(error: CallError) -> Response:
    """What a REST client gets for an error."""
    return answer({"error": error.message}, error.code.http)


class _Edge:
    """Around all routes: bounds and unzips request bodies, and logs a failure that has been answered."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            receive = _Body(receive, dict(scope["headers"]).get(b"content-encoding", b""), self._max_body)
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception:  # noqa: BLE001 - Starlette answers with `_failed`, then lets it through to be logged
            _log.exception("%s %s failed", scope.get("method"), scope.get("path"))


class _Body:
    """Receives a request's body, unzipped, until it exceeds the limit."""

    def __init__(self, receive: Receive, encoding: bytes, limit: int) -> None:
        self._receive = receive
        self._encoding = encoding
        self._limit = self._left = limit
        self._inflate = zlib.decompressobj(wbits=_GZIP_WINDOW)

    async def __call__(self) -> Message:
        event = await self._receive()
        if event["type"] != "http.request":
            return event
        body = event.get("body", b"")
        if self._encoding == b"gzip":
            body = self._unzipped(body)
        elif self._encoding not in {b"", b"identity"}:
            encoding = self._encoding.decode("latin-1")
            raise Unimplemented(f"Content-Encoding {encoding!r} is not supported; send identity or gzip")
        self._left -= len(body)
        if self._left < 0:
            raise ResourceExhausted(f"the body has more than {self._limit} bytes; that is the limit")
        if self._encoding == b"gzip" and not event.get("more_body", False) and not self._inflate.eof:
            raise InvalidArgument("the gzip body is cut short")
        return {**event, "body": body}

    def _unzipped(self, chunk: bytes) -> bytes:
        try:
            plain = self._inflate.decompress(chunk, self._left + 1)
        except zlib.error as error:
            raise InvalidArgument(f"the gzip body cannot be read: {error}") from None
        if self._inflate.unused_data:
            raise InvalidArgument(f"{len(self._inflate.unused_data)} bytes follow the gzip body")
        return plain


async def _refused(_request: Request, error: Any) -> Response:
    return refusal(error)


async def _unrouted(request: Request, error: Any) -> Response:
    path, headers = request.scope["path"], error.headers or {}
    sentences = {
        404: f"there is no {path} here",
        405: f"{path} does not take {request.method}; it takes {headers.get('Allow')}",
    }
    response = answer({"error": sentences.get(error.status_code, error.detail)}, error.status_code)
    response.headers.update(headers)
    return response


async def _failed(_request: Request, _error: Any) -> Response:
    return answer({"error": "internal error; the server's log has the traceback"}, 500)


def _health(what: str, *, good: bool, **about: str) -> Response:
    return answer({**about, what: good}, 200 if good else _UNAVAILABLE)


def _model(request: Request) -> tuple[str, str]:
    return request.path_params["model"], request.path_params.get("version", "")


def _tensor(told: ModelMetadataResponse.TensorMetadata) -> dict[str, Any]:
    tensor = {"name": told.name, "datatype": told.datatype, "shape": told.shape[:]}
    return tensor | {"parameters": parameters_of(told.parameters)} if told.parameters else tensor


def _index(body: bytes) -> _Index:
    try:
        return msgspec.json.decode(body or b"{}", type=_Index)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the body is not an index request: {error}") from None
