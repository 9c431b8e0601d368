"""The models of a repository in service: loads, swaps and unloads them, and has them answer requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from protos.background import Background
from protos.errors import CallError, FailedPrecondition, NotFound
from protos.grpc import Rpc
from protos.infer_request import InferRequest
from protos.messages import ModelInferResponse, ModelMetadataResponse
from runtime import formats
from runtime.catalogue import Catalogue, Entry, Key, State, age
from runtime.loader import Loader, reason_of
from runtime.metrics import Metrics
from runtime.model import Model
from runtime.naming import naming
from runtime.parts import check_parts
from runtime.prepare import Load
from runtime.repository import Found, Repository
from runtime.served import Servable, Served
from runtime.settings import ModelSettings
from runtime.words import shown

_log = logging.getLogger(__name__)

Override = Callable[[ModelSettings], ModelSettings]  # raises InvalidArgument
T = TypeVar("T")


class Engine:
    """Answers inference requests for the models of one repository. Belongs to one event loop.

    `load` makes a model of a folder; it is called in a thread.
    """

    def __init__(
        self,
        repository: Repository,
        metrics: Metrics,
        *,
        load: Load[Model | Servable] = formats.load_any,
    ) -> None:
        self._repository = repository
        self._metrics = metrics
        self._catalogue = Catalogue()
        self.endpoints = self._catalogue.endpoints
        self.unfinished = self._catalogue.unfinished
        self._wanted: set[Key] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # a client sends any name
        self._loader = Loader(load, self._catalogue, metrics)
        self._waiting: list[ModelSettings] = []  # of models whose parts are being loaded
        self._tasks = Background()

    async def infer(
        self, request: InferRequest, *, deadline: float | None = None, rpc: Rpc | None = None
    ) -> ModelInferResponse:
        """Answers one request. `deadline` is on the loop's clock; a call that has not begun by then is not run.

        `rpc` is the call that it came by, where there was one: models written for MLServer read and answer its headers.
        """
        return await self._asked(request.model_name, request.model_version).infer(request, deadline, rpc)

    def admit(self, name: str, version: str) -> None:
        """Raises what `infer` would for a model that is not there or whose queue is full; before parsing a request."""
        self._asked(name, version).admit()

    def served(self, name: str, version: str) -> Served:
        """A loaded model; raises NotFound or Unavailable as `infer` does."""
        served = self._catalogue.get(name, version)
        if served is None:
            raise self._catalogue.absent(name, version)
        return served

    def all_served(self, name: str = "", version: str = "") -> dict[Key, Served]:
        """The loaded versions of a model, or of all; one version, if it is given. Raises as `served` does."""
        if name:
            self.served(name, version)
        return self._catalogue.all(name, version)

    def metadata(self, name: str, version: str) -> ModelMetadataResponse:
        """Inputs, outputs and versions of a loaded model; raises NotFound or Unavailable as `infer` does."""
        metadata = self.served(name, version).servable.metadata()
        metadata.versions.extend(self._catalogue.versions(name))
        return metadata

    def is_ready(self, name: str, version: str) -> bool:
        """Whether a model can infer now, and what it is made of. Raises NotFound for one that was never heard of."""
        served = self._catalogue.get(name, version)
        if served is None and not self._catalogue.knows(name, version):
            raise self._catalogue.absent(name, version)
        return served is not None and not served.hindrance()

    def ready(self) -> bool:
        """Whether all that was to be loaded at the start is served. True if that was nothing."""
        return not any(self._catalogue.exactly(key) is None for key in self._wanted)

    async def index(self) -> list[Entry]:
        """What is in the repository now, and what is served though it is there no more."""
        return self._catalogue.index(await asyncio.to_thread(self._repository.scan))

    async def load_all(self) -> list[Entry]:
        """Loads every model of the repository; returns those that failed, with their reasons."""
        return await (await self.start_loading())

    async def start_loading(self) -> asyncio.Task[list[Entry]]:
        """Begins `load_all` and returns when `ready` knows what is to come; the task is the rest."""
        models: dict[str, list[Found]] = {}
        for found in await asyncio.to_thread(self._repository.scan):
            key = (found.name, found.version)
            self._wanted.add(key)
            if self._catalogue.exactly(key) is None:
                self._catalogue.note(key, State.LOADING)
            models.setdefault(found.name, []).append(found)
        return self._background(self._load_each(models))

    async def load(self, name: str, override: Override | None = None) -> None:
        """Loads what the repository has under a name, all versions; swaps those whose files changed, without a gap.

        On a GPU the new one is tried out on the CPU, and loaded when the old one is gone, whose calls wait for that.
        `override` changes the settings of each version, until it is loaded without. Raises NotFound when nothing there
        has this name, and FailedPrecondition when a version does not load: then what was served before goes on, unless
        it is gone already, and the index says why.
        """
        # A caller who leaves does not leave a model half loaded behind.
        await asyncio.shield(self._background(self._load(name, override=override)))

    async def unload(self, name: str) -> None:
        """Takes all versions of a model out of service; their calls in flight are answered. Raises NotFound."""
        await asyncio.shield(self._background(self._unload(name)))

    async def close(self) -> None:
        """Ends the service: what loads is given up, what is queued is answered."""
        await self._tasks.cancel()
        await self._retire(self._catalogue.all())
        self._loader.close()

    async def _load_each(self, models: dict[str, list[Found]]) -> list[Entry]:
        await asyncio.gather(*(self._load(*model) for model in models.items()), return_exceptions=True)
        return self._catalogue.entries(self._wanted - self._catalogue.all().keys())

    async def _load(
        self, name: str, found: list[Found] | None = None, override: Override | None = None, *, missing: bool = False
    ) -> None:
        """Loads a model, or with `missing` one that is not served yet."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            if missing and self._catalogue.get(name, "") is not None:
                return
            if found is None:
                found = await asyncio.to_thread(self._repository.find, name)
            if not found:
                served = "; what was loaded before is served until it is unloaded" if self._called(name) else ""
                raise NotFound(f"the repository has no model {shown(name)}{served}")
            if override is not None:
                found = [replace(each, settings=each.settings and override(each.settings)) for each in found]
            gone = self._called(name) - {(each.name, each.version) for each in found}
            # The newest first: whoever names no version means that one.
            newest_first = sorted(found, key=lambda each: age(each.version), reverse=True)
            failures = [reason for each in newest_first if (reason := await self._load_version(each, gone))]
            await self._retire(gone & self._called(name))
            for key in gone:  # of which one may have made way
                self._wanted.discard(key)
                self._forget(key)
            if failures:
                raise FailedPrecondition("; ".join(failures))

    async def _load_version(self, found: Found, gone: set[Key]) -> str:
        """Loads one version, perhaps in the place of one that is gone; returns why it failed if it did."""
        key = (found.name, found.version)
        serving = self._catalogue.exactly(key)
        if serving is None:
            self._catalogue.note(key, State.LOADING)
        try:
            if found.settings is None:
                raise FailedPrecondition(found.reason)
            await self._load_parts(found.settings)
            loaded = await self._loader.loaded(found, found.settings, serving, gone)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the index tells it
            reason = reason_of(error)
            serves_on = self._catalogue.exactly(key) is not None
            self._catalogue.note(key, State.READY if serves_on else State.UNAVAILABLE, reason)
            self._metrics.loads["failed"] += 1
            if not serves_on:
                self._metrics.forget(*key)
            _log.warning("model %r was not loaded: %s", found.name, reason, exc_info=not isinstance(error, CallError))
            return reason
        self._metrics.loads["unchanged" if loaded is serving else "loaded"] += 1
        replaced = self._catalogue.exactly(key)
        self._catalogue.put(key, loaded)
        self._catalogue.note(key, State.READY)
        if replaced is not None and replaced is not loaded:
            await replaced.close()
        return ""

    async def _load_parts(self, settings: ModelSettings) -> None:
        """Loads the models that an ensemble is made of, but those that are served. Raises FailedPrecondition."""
        if not settings.options.parts:
            return
        others = [each.settings for each in await asyncio.to_thread(self._repository.scan) if each.settings is not None]
        others += [each.settings for each in self._catalogue.all().values()]  # as they may be overridden
        # Before any is loaded: two that wait for each other would wait for ever.
        check_parts(settings, [*others, *self._waiting])
        self._waiting.append(settings)
        try:
            for name in settings.options.parts:
                with naming(f"its part {name!r}"):
                    await self._load(name, missing=True)
        finally:
            self._waiting.remove(settings)

    async def _unload(self, name: str) -> None:
        async with self._locks.setdefault(name, asyncio.Lock()):
            served = self._called(name)
            if not self._catalogue.knows(name) and not await asyncio.to_thread(self._repository.find, name):
                raise NotFound(f"the repository has no model {shown(name)}")
            self._wanted -= {key for key in self._wanted if key[0] == name}
            await self._retire(served)

    def _called(self, name: str) -> set[Key]:
        """What is in service under a name; nothing under an empty one, which means all elsewhere."""
        return {key for key in self._catalogue.all(name) if key[0] == name}

    async def _retire(self, keys: Iterable[Key]) -> None:
        """Takes versions out of service, all at once: none answers in another's place."""
        served = {key: self._catalogue.take(key) for key in keys}
        self._wanted -= served.keys()
        for key in served:
            self._catalogue.note(key, State.UNLOADING)
        await asyncio.gather(*(self._close(*each) for each in served.items()))

    async def _close(self, key: Key, served: Served) -> None:
        await served.close()
        self._forget(key)

    def _forget(self, key: Key) -> None:
        self._metrics.forget(*key)
        self._catalogue.note(key, State.UNAVAILABLE, "unloaded")

    def _asked(self, name: str, version: str) -> Served:
        served = self._catalogue.get(name, version)
        if served is None:
            self._metrics.unknown += 1
            raise self._catalogue.absent(name, version)
        return served

    def _background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._tasks.start(work)
        # Its caller may have left; the index keeps what went wrong.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task
