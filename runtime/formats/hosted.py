"""Models written for MLServer, hosted as they are: their class and their settings file. Needs the extra `mlserver`.

They read whole requests: content types and codecs work, as do parameters and headers, and streams are theirs to answer.
What MLServer does around a model and we do not: its batching, its cache, its own environments.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from fastapi import FastAPI
from mlserver import MLModel, types
from mlserver.context import model_context
from mlserver.errors import MLServerError
from mlserver.settings import ModelParameters
from mlserver.settings import ModelSettings as TheirSettings
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from protos.errors import CallError, DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument, ResourceExhausted
from protos.grpc import Header, Rpc
from protos.infer_request import InferRequest
from protos.messages import ModelInferResponse, ModelMetadataResponse
from runtime.failure import failure, said_by
from runtime.formats.custom_handlers import application, response_of
from runtime.formats.loop_thread import LoopThread, through, until
from runtime.formats.mlserver_types import error_of, fill, headers_of, request_of, tell_of
from runtime.settings import FILE, ModelSettings

T = TypeVar("T")
Headers = list[Header]

_log = logging.getLogger(__name__)


def host(made_of: type[MLModel], settings: ModelSettings, folder: Path, *, forget: Callable[[], None]) -> Hosted:
    """A model of such a class, loaded. Raises what its code raises, and FailedPrecondition when it is not ready."""
    theirs = _settings(settings, folder)
    loop = LoopThread(f"model {settings.name}")
    try:
        model, metadata, endpoints = loop.run(_loaded(made_of, theirs))
    except BaseException:
        loop.stop()
        raise
    streams = made_of.predict_stream is not MLModel.predict_stream
    return (HostedStream if streams else Hosted)(model, metadata, settings, endpoints, loop, forget)


class Hosted:
    """A model in a thread with an event loop of its own, where it may block as MLServer's models do."""

    memory = 0  # only its own code knows
    shares_runs = False

    def __init__(
        self,
        model: MLModel,
        metadata: types.MetadataModelResponse,
        settings: ModelSettings,
        endpoints: FastAPI,
        loop: LoopThread,
        forget: Callable[[], None],
    ) -> None:
        served = [each for each in endpoints.routes if isinstance(each, Route)]
        self.routes = [Route(each.path, self._respond, methods=[*(each.methods or ())]) for each in served]
        self._model = model
        self._metadata = metadata
        self._endpoints = endpoints
        self._name = settings.name
        self._version = settings.version
        self._most = settings.options.max_queue
        self._loop = loop
        self._forget = forget
        self._calls: set[asyncio.Future[Any]] = set()
        self._submitted = self._begun = 0  # the first is written here, the second in the model's own loop
        self._closing = asyncio.Event()

    def admit(self) -> None:
        # Whose caller has left stands in the model's loop until its turn. One of them has its turn, or is next.
        waiting = max(len(self._calls), self._submitted - self._begun) - 1
        if waiting >= self._most:
            raise ResourceExhausted(
                f"{waiting} calls already wait for model {self._name!r}, as many as may; try again later"
            )

    async def infer(self, request: InferRequest, deadline: float | None, rpc: Rpc | None = None) -> ModelInferResponse:
        gone = threading.Event()
        try:
            response, headers = await self._called(self._answer(request, deadline, rpc, gone))
        except asyncio.CancelledError:
            gone.set()
            raise
        if rpc is not None:
            rpc.trailing += headers
        return response

    def metadata(self) -> ModelMetadataResponse:
        theirs = self._metadata
        metadata = ModelMetadataResponse(name=self._name, platform=theirs.platform)
        for tensors, specs in ((metadata.inputs, theirs.inputs), (metadata.outputs, theirs.outputs)):
            for spec in specs or ():
                tell_of(tensors.add(name=spec.name, datatype=spec.datatype, shape=spec.shape), spec)
        tell_of(metadata, theirs)
        return metadata

    async def close(self) -> None:
        self._closing.set()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await asyncio.wrap_future(self._loop.submit(_unloaded(self._model)))
        self._loop.stop()
        self._forget()

    async def _respond(self, request: Request) -> Response:
        body = await request.body()
        self.admit()
        return await response_of(self._endpoints, request, body, self._called)

    def _called(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Has the model's own loop do it; unloading waits for that."""
        self._submitted += 1
        self._loop.soon(self._begin)
        call: asyncio.Future[T] = asyncio.wrap_future(self._loop.submit(work))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    def _begin(self) -> None:
        self._begun += 1

    async def _answer(
        self, request: InferRequest, deadline: float | None, rpc: Rpc | None, gone: threading.Event
    ) -> tuple[ModelInferResponse, Headers]:
        """Runs in the model's own loop, where its turn comes when the calls before it block no more."""
        if gone.is_set():
            raise asyncio.CancelledError
        if deadline is not None and deadline <= asyncio.get_running_loop().time():
            raise DeadlineExceeded("the deadline passed while the call waited for its turn")
        asked = request_of(request, rpc)
        with _asked(self._model):
            answer = await self._model.predict(asked)
        return self._response(request, answer), headers_of(answer, rpc)

    def _response(self, request: InferRequest, answer: types.InferenceResponse) -> ModelInferResponse:
        if not isinstance(answer, types.InferenceResponse):
            raise Internal(f"model {self._name!r} returned {type(answer).__name__}, not an InferenceResponse")
        response = ModelInferResponse(model_name=self._name, model_version=self._version, id=request.id)
        fill(response, answer, raw=bool(request.raw_input_contents))
        return response


class HostedStream(Hosted):
    """A model with a `predict_stream` of its own, which answers a stream of requests as a whole."""

    async def infer_stream(
        self, first: InferRequest, others: AsyncIterator[InferRequest], rpc: Rpc
    ) -> AsyncGenerator[ModelInferResponse, None]:
        """Answers as they come; the model makes the next one when the last was taken."""
        headers: Headers = []

        async def asked() -> AsyncGenerator[InferRequest, None]:
            yield first
            async for request in until(self._closing, others):
                if (request.model_name, request.model_version) != (first.model_name, first.model_version):
                    raise InvalidArgument(f"model {self._name!r} answers this stream, which asks for another one, too")
                yield request

        async def answers(
            requests: AsyncGenerator[InferRequest, None],
        ) -> AsyncGenerator[tuple[ModelInferResponse, Headers], None]:
            with _asked(self._model):
                async for answer in self._model.predict_stream(request_of(each, rpc) async for each in requests):
                    yield self._response(first, answer), headers_of(answer, rpc)

        async with aclosing(through(answers, asked(), self._called)) as made:
            async for response, headers in made:  # noqa: B007 - the last are those of the stream
                yield response
        rpc.trailing += headers


def _settings(settings: ModelSettings, folder: Path) -> TheirSettings:
    """MLServer's own settings, of the very file; without one it reads the environment itself.

    Raises FailedPrecondition where it does not take them.
    """
    file = folder / FILE
    try:
        theirs = TheirSettings.parse_file(str(file)) if file.exists() else TheirSettings()
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise FailedPrecondition(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    parameters = theirs.parameters or ModelParameters()
    if parameters.environment_tarball or parameters.environment_path:
        raise FailedPrecondition("parameters.environment_*: models share this server's environment; install it here")
    theirs.name = settings.name
    theirs.parameters = parameters
    parameters.version = parameters.version or settings.version or None
    parameters.uri = parameters.uri or str(folder)
    return theirs


async def _loaded(
    made_of: type[MLModel], settings: TheirSettings
) -> tuple[MLModel, types.MetadataModelResponse, FastAPI]:
    with model_context(settings):
        model = made_of(settings)
        endpoints = application(model, partial(_failure, model))
        try:
            model.ready = await model.load()
            if not model.ready:
                raise FailedPrecondition(f"{made_of.__name__}.load() does not return True: the model is not ready")
            return model, await model.metadata(), endpoints
        except BaseException:
            await _unloaded(model)
            raise


async def _unloaded(model: MLModel) -> None:
    """Has it unloaded, which may raise anything: half loaded, say, or of a task that it cancels and waits for."""
    with model_context(model.settings):
        try:
            model.ready = not await model.unload()
        except BaseException as error:  # noqa: BLE001 - it is out of service all the same
            _log.warning("model %r was not unloaded: %s", model.name, said_by(error))


@contextmanager
def _asked(model: MLModel) -> Iterator[None]:
    """Around what a model does: what it raises becomes a CallError."""
    try:
        with model_context(model.settings):
            yield
    except CallError:
        raise
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # and not a task of the model's own, which it waited for
            raise
        raise _failure(model, error) from error


def _failure(model: MLModel, error: BaseException) -> CallError:
    """What an error that a model raised means."""
    if isinstance(error, MLServerError | HTTPException):
        return error_of(error)
    return failure(model.name, error)
