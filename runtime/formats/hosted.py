"""Models written for MLServer, hosted as they are: their class and their settings file. Needs the extra `mlserver`.

They read whole requests: content types and codecs work, as do parameters. BYTES reach them as bytes, also by REST.
What MLServer does around a model and we do not: its batching, its cache, its own environments, its custom endpoints.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from mlserver import MLModel, types
from mlserver.context import model_context
from mlserver.errors import MLServerError
from mlserver.settings import ModelParameters
from mlserver.settings import ModelSettings as TheirSettings

from protos.errors import CallError, DeadlineExceeded, FailedPrecondition, Internal, ResourceExhausted
from protos.messages import ModelInferRequest, ModelInferResponse, ModelMetadataResponse
from runtime.formats.mlserver_types import error_of, fill, request_of
from runtime.settings import FILE, ModelSettings

T = TypeVar("T")

_log = logging.getLogger(__name__)


def host(made_of: type[MLModel], settings: ModelSettings, folder: Path, *, forget: Callable[[], None]) -> Hosted:
    """A model of such a class, loaded. Raises what its code raises, and FailedPrecondition when it is not ready."""
    theirs = _settings(settings, folder)
    loop = _Loop(f"model {settings.name}")
    try:
        model, metadata = loop.run(_loaded(made_of, theirs))
    except BaseException:
        loop.stop()
        raise
    return Hosted(model, metadata, settings, loop, forget)


class Hosted:
    """A model in a thread with an event loop of its own, where it may block as MLServer's models do."""

    def __init__(
        self,
        model: MLModel,
        metadata: types.MetadataModelResponse,
        settings: ModelSettings,
        loop: _Loop,
        forget: Callable[[], None],
    ) -> None:
        self._model = model
        self._metadata = metadata
        self._name = settings.name
        self._version = settings.version
        self._most = settings.options.max_queue
        self._loop = loop
        self._forget = forget
        self._calls: set[asyncio.Future[ModelInferResponse]] = set()

    async def infer(self, request: ModelInferRequest, deadline: float | None) -> ModelInferResponse:
        waiting = len(self._calls) - 1  # one of them has its turn
        if waiting >= self._most:
            raise ResourceExhausted(
                f"{waiting} calls already wait for model {self._name!r}, as many as may; try again later"
            )
        gone = threading.Event()
        answer: asyncio.Future[ModelInferResponse]
        answer = asyncio.wrap_future(self._loop.submit(self._answer(request, deadline, gone)))
        self._calls.add(answer)
        answer.add_done_callback(self._calls.discard)
        try:
            return await answer
        except asyncio.CancelledError:
            gone.set()
            raise

    def metadata(self) -> ModelMetadataResponse:
        theirs = self._metadata
        metadata = ModelMetadataResponse(name=self._name, platform=theirs.platform)
        for tensors, specs in ((metadata.inputs, theirs.inputs), (metadata.outputs, theirs.outputs)):
            for spec in specs or ():
                tensors.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        return metadata

    async def close(self) -> None:
        await asyncio.gather(*self._calls, return_exceptions=True)
        try:
            await asyncio.wrap_future(self._loop.submit(_unloaded(self._model)))
        except Exception as error:  # noqa: BLE001 - it may raise anything, and is out of service all the same
            _log.warning("model %r was not unloaded: %s: %s", self._name, type(error).__name__, error)
        self._loop.stop()
        self._forget()

    async def _answer(
        self, request: ModelInferRequest, deadline: float | None, gone: threading.Event
    ) -> ModelInferResponse:
        """Runs in the model's own loop, where its turn comes when the calls before it block no more."""
        if gone.is_set():
            raise asyncio.CancelledError
        if deadline is not None and deadline <= asyncio.get_running_loop().time():
            raise DeadlineExceeded("the deadline passed while the call waited for its turn")
        asked = request_of(request)
        try:
            with model_context(self._model.settings):
                answer = await self._model.predict(asked)
        except CallError:
            raise
        except MLServerError as error:
            raise error_of(error) from error
        except Exception as error:
            raise Internal(f"model {self._name!r} failed: {type(error).__name__}: {error}") from error
        response = ModelInferResponse(model_name=self._name, model_version=self._version, id=request.id)
        fill(response, answer, raw=bool(request.raw_input_contents))
        return response


class _Loop:
    """An event loop that runs in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Any:
        """The future of what `work` returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for what `work` returns. Not in an event loop."""
        result: T = self.submit(work).result()
        return result

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()


def _settings(settings: ModelSettings, folder: Path) -> TheirSettings:
    """MLServer's own settings, of the very file. Raises FailedPrecondition where it does not take them."""
    try:
        theirs = TheirSettings.parse_file(str(folder / FILE))
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


async def _loaded(made_of: type[MLModel], settings: TheirSettings) -> tuple[MLModel, types.MetadataModelResponse]:
    with model_context(settings):
        model = made_of(settings)
        try:
            model.ready = await model.load()
            if not model.ready:
                raise FailedPrecondition(f"{made_of.__name__}.load() does not return True: the model is not ready")
            return model, await model.metadata()
        except BaseException:
            with suppress(Exception):  # it is half loaded, which many do not expect
                await model.unload()
            raise


async def _unloaded(model: MLModel) -> None:
    with model_context(model.settings):
        model.ready = not await model.unload()
