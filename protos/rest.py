"""The V2 protocol over HTTP: its routes, and the application around any routes.

Whatever goes wrong is answered with {"error": "a sentence"}.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from protos import binary
from protos.content import TENSORS, Body, Packing, accepted
from protos.errors import CallError, Code, InvalidArgument
from protos.events import events
from protos.grpc import Rpc, Streaming
from protos.infer_json import BINARY, Form, body_of, parameters_of, request_of
from protos.messages import ModelInferResponse, ModelMetadataResponse, as_dict
from protos.v2 import TritonService, V2Service, load_model, one_by_one, unload_model

_log = logging.getLogger(__name__)

_UNAVAILABLE = 503

B = TypeVar("B", bound=msgspec.Struct)


class _Index(msgspec.Struct, forbid_unknown_fields=True):
    ready: bool = False


class _Repository(msgspec.Struct, forbid_unknown_fields=True):
    parameters: dict[str, bool | int | str] = {}


def v2_routes(
    service: V2Service,
    triton: TritonService | None = None,
    admit: Callable[[str, str], None] = lambda _model, _version: None,
    stream: Streaming | None = None,
) -> list[Route]:
    """The REST endpoints of `service`. The trailing metadata of an inference becomes headers of its response.

    `stream` answers a stream of inference requests, which is one request here, otherwise than by one answer.

    `admit` is asked before the body of an inference is parsed, which may take longer than to run the model; it raises a
    CallError where there is no such model, or it has no time.
    """
    answers = stream or one_by_one(service)

    async def infer(request: Request) -> Response:
        """Asks a model; tensors are JSON, or bytes behind it."""
        rpc = Rpc(request.scope["headers"], rest=True)
        try:
            asked, form = await asked_of(request, rpc)
            response = _whole(*body_of(ModelInferResponse.FromString(await service.infer(asked, rpc)), form))
        except CallError as error:
            response = refusal(error)
        return _with_headers(response, rpc)

    async def infer_stream(request: Request) -> Response:
        """Asks a model; its answers, in JSON, are the events of a stream."""
        rpc = Rpc(request.scope["headers"], rest=True)
        try:
            asked, form = await asked_of(request, rpc)
            response = await events(answers(_only(asked), rpc), form)
        except CallError as error:
            response = refusal(error)
        return _with_headers(response, rpc)

    async def asked_of(request: Request, rpc: Rpc) -> tuple[bytes, Form]:
        body, (model, version) = await request.body(), _model(request)
        if version or b"model_version" not in body:  # which may name another than the newest
            admit(model, version)
        given = rpc.metadata.raw.get(binary.HEADER)
        size = None if given is None else binary.json_size(given, body)
        if size != 0:
            return request_of(body, model, version, size)
        only = binary.only_input(body, await service.model_metadata(model, version))
        only.model_name, only.model_version = model, version
        return only.SerializeToString(), BINARY

    async def live(_request: Request) -> Response:
        """Whether the process answers."""
        return _health("live", good=await service.live())

    async def ready(_request: Request) -> Response:
        """Whether the server can take requests."""
        return _health("ready", good=await service.ready())

    async def server(_request: Request) -> Response:
        """Name, version and extensions of the server."""
        return answer(as_dict(await service.server_metadata()))

    async def model(request: Request) -> Response:
        """Inputs, outputs and versions of a model."""
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
        """Whether a model can infer."""
        name, version = _model(request)
        return _health("ready", good=await service.model_ready(name, version), name=name)

    async def index(request: Request) -> Response:
        """The models of the repository and their states."""
        told = await service.index(ready=_read(await request.body(), _Index, "an index request").ready)
        # A model without a version has none, rather than an empty one.
        return answer([{k: v for k, v in as_dict(each).items() if v or k != "version"} for each in told.models])

    async def load(request: Request) -> Response:
        """Loads or reloads a model."""
        asked = _read(await request.body(), _Repository, "a load request")
        await load_model(service, triton, request.path_params["model"], asked.parameters)
        return answer({})

    async def unload(request: Request) -> Response:
        """Takes a model out of service."""
        asked = _read(await request.body(), _Repository, "an unload request")
        await unload_model(service, request.path_params["model"], asked.parameters)
        return answer({})

    return [
        # The first match is taken, and most requests are these.
        *_versioned("/infer", infer, "POST"),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2", server),
        *(_triton_routes(triton) if triton is not None else ()),
        *_versioned("", model),
        *_versioned("/ready", model_ready),
        *_versioned("/infer_stream", infer_stream, "POST"),
        # MLServer's other names for the same.
        *_versioned("/generate", infer, "POST"),
        *_versioned("/generate_stream", infer_stream, "POST"),
        Route("/v2/repository/index", index, methods=["POST"]),
        Route("/v2/repository/models/{model}/load", load, methods=["POST"]),
        Route("/v2/repository/models/{model}/unload", unload, methods=["POST"]),
    ]


def _triton_routes(triton: TritonService) -> list[Route]:
    async def config(request: Request) -> Response:
        """How a model is served, in Triton's terms."""
        return answer(as_dict(await triton.model_config(*_model(request))))

    async def statistics(request: Request) -> Response:
        """What was counted, for a model or for all."""
        return answer(as_dict(await triton.statistics(*_model(request))))

    return [
        Route("/v2/models/stats", statistics),
        *_versioned("/stats", statistics),
        *_versioned("/config", config),
    ]


def _versioned(suffix: str, endpoint: Callable[[Request], Awaitable[Response]], method: str = "GET") -> list[Route]:
    paths = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
    return [Route(path + suffix, endpoint, methods=[method]) for path in paths]


def rest_app(routes: Sequence[Route], *, max_body: int, pack: bool = True) -> ASGIApp:
    """The application that serves `routes`, as they are when a request comes.

    Bodies over `max_body` bytes, as sent or once unpacked, are refused.
    With `pack` long answers are compressed for clients that take them so.
    """
    return _App(routes, max_body, pack=pack)


def answer(content: Any, status: int = 200) -> Response:
    """`content` as a JSON response."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def refusal(error: CallError) -> Response:
    """What a REST client gets for an error."""
    response = answer({"error": error.message}, error.http)
    if error.code is Code.UNAUTHENTICATED:
        response.headers["www-authenticate"] = "Bearer"
    if error.retry_after is not None:
        response.headers["retry-after"] = str(math.ceil(error.retry_after))
    for name, value in error.headers:
        response.headers[name.decode()] = value.decode()
    return response


class _App:
    """Finds the route of a request and answers, whatever happens. Starlette's own takes half as long again."""

    def __init__(self, routes: Sequence[Route], max_body: int, *, pack: bool) -> None:
        self._routes = routes
        self._max_body = max_body
        self._pack = pack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if self._pack and (coding := accepted(headers.get(b"accept-encoding", b""))):
            send = Packing(send, coding)
        try:
            endpoint = self._endpoint(scope)
            body = Body(receive, headers.get(b"content-encoding", b""), self._max_body)
            response = await endpoint(Request(scope, body))
        except CallError as error:
            response = refusal(error)
        except ClientDisconnect:
            return
        except Exception:  # noqa: BLE001 - an endpoint may raise anything
            _log.exception("%s %s failed", scope["method"], scope["path"])
            response = answer({"error": "internal error; the server's log has the traceback"}, 500)
        await response(scope, receive, send)

    def _endpoint(self, scope: MutableMapping[str, Any]) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint for a request, whose scope gets what the path says; a slash at its end says nothing."""
        scope["path"] = scope["path"].rstrip("/") or "/"
        methods: set[str] = set()
        for route in self._routes:
            match, said = route.matches(scope)
            if match is Match.FULL:
                scope.update(said)
                return route.endpoint
            if match is Match.PARTIAL:
                methods |= route.methods or set()
        return _not_allowed(methods) if methods else _not_there


def _whole(body: bytes, json_size: int | None) -> Response:
    if json_size is None:
        return Response(body, media_type="application/json")
    return Response(body, media_type=TENSORS, headers={binary.HEADER.decode(): str(json_size)})


async def _only(asked: bytes) -> AsyncIterator[bytes]:
    yield asked


def _with_headers(response: Response, rpc: Rpc) -> Response:
    response.raw_headers += rpc.trailing
    return response


async def _not_there(request: Request) -> Response:
    await request.body()  # curl takes an answer before it has sent all of it for a broken stream
    return answer({"error": f"there is no {request.scope['path']} here"}, 404)


def _not_allowed(methods: set[str]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        await request.body()  # as above
        allowed = ", ".join(sorted(methods - {"HEAD"}))
        sentence = f"{request.scope['path']} does not take {request.method}; it takes {allowed}"
        response = answer({"error": sentence}, 405)
        response.headers["allow"] = allowed
        return response

    return endpoint


def _health(what: str, *, good: bool, **about: str) -> Response:
    return answer({**about, what: good}, 200 if good else _UNAVAILABLE)


def _model(request: Request) -> tuple[str, str]:
    return request.path_params.get("model", ""), request.path_params.get("version", "")


def _tensor(told: ModelMetadataResponse.TensorMetadata) -> dict[str, Any]:
    tensor = {"name": told.name, "datatype": told.datatype, "shape": told.shape[:]}
    return tensor | {"parameters": parameters_of(told.parameters)} if told.parameters else tensor


def _read(body: bytes, kind: type[B], what: str) -> B:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the body is not {what}: {error}") from None
