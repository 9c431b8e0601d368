"""The endpoints that a model written for MLServer has of its own: methods that its `custom_handler` marks.

FastAPI serves them, as under MLServer: what their parameters and annotations mean is between the two. It runs in the
model's loop; what a request brings goes there, and what is answered comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from mlserver import MLModel
from mlserver.context import model_context
from mlserver.handlers import get_custom_handlers
from mlserver.rest.app import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protos.errors import CallError, FailedPrecondition, Internal, InvalidArgument
from protos.rest import refusal
from runtime.formats.loop_thread import across

There = Callable[[Coroutine[Any, Any, None]], asyncio.Future[None]]

_PACKED = {b"content-encoding", b"content-length"}  # what is said of a body that was unpacked since


def application(model: MLModel, failure: Callable[[BaseException], CallError]) -> FastAPI:
    """Serves a model's methods, each at its path. `failure` is what an error of theirs means.

    Raises FailedPrecondition naming the endpoint of which FastAPI can make nothing.
    """

    class Answered(APIRoute):  # type: ignore[misc]  # MLServer ships no types
        """A route of MLServer's, whose errors are answered as all of ours are."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle: Callable[[Request], Coroutine[Any, Any, Response]] = super().get_route_handler()

            async def answered(request: Request) -> Response:
                try:
                    with model_context(model.settings):
                        return await handle(request)
                except HTTPException:  # a status of the method's own, which FastAPI knows to answer
                    raise
                except RequestValidationError as error:
                    return refusal(InvalidArgument(_wrong(error)))
                except (Exception, SystemExit) as error:  # noqa: BLE001 - a method may raise anything
                    return refusal(failure(error))

            return answered

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.router.route_class = Answered
    for handler, method in get_custom_handlers(model):
        told = f"endpoint {handler.rest_method} {handler.rest_path}"
        path = handler.rest_path.rstrip("/") or "/"  # as a slash at the end of a request's means nothing
        try:
            methods = Route(path, method, methods=[handler.rest_method]).methods or set()  # HEAD with GET
            app.add_api_route(path, method, methods=[*methods])
        except Exception as error:
            raise FailedPrecondition(f"{told}: {error}") from error
        there = [each for each in app.routes if isinstance(each, Route) and each.path == path]
        if any(each.endpoint != method and methods & (each.methods or set()) for each in there):
            raise FailedPrecondition(f"{told}: two methods of {type(model).__name__} are there; only one can answer")
    return app


async def response_of(app: ASGIApp, request: Request, body: bytes, there: There) -> Response:
    """What an application that runs in another loop answers; `there` has work done in that loop.

    Returns when the answer begins, and raises what goes wrong before.
    """
    here = asyncio.get_running_loop()
    begun: asyncio.Future[Message] = here.create_future()
    sender: asyncio.Future[Send] = here.create_future()
    given: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return given.pop() if given else await across(_next(request.receive), here)

    async def pass_on(event: Message) -> None:
        if not begun.done():
            begun.set_result(event)
        await (await sender)(event)

    async def send(event: Message) -> None:
        await across(pass_on(event), here)

    headers = [each for each in request.scope["headers"] if each[0] not in _PACKED]
    headers.append((b"content-length", str(len(body)).encode()))
    work = there(_run(app, {**request.scope, "headers": headers}, receive, send))
    either: list[asyncio.Future[Any]] = [work, begun]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        work.cancel()
        raise
    if not begun.done():
        await work
        raise Internal("the endpoint did not answer")
    return _Elsewhere(begun.result()["status"], sender, work)


class _Elsewhere(Response):
    """The answer that another loop's work sends, as it sends it."""

    def __init__(self, status: int, sender: asyncio.Future[Send], work: asyncio.Future[None]) -> None:
        super().__init__(status_code=status)
        self._sender = sender
        self._work = work

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        self._sender.set_result(send)
        try:
            await self._work  # what it does once it has answered, too
        finally:
            self._work.cancel()


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def _next(receive: Receive) -> Message:
    return await receive()


def _wrong(error: RequestValidationError) -> str:
    """What in a request is not as a method takes it."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
