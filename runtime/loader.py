"""Makes what answers requests of a model's folder, in threads beside the event loop; perhaps in another's place."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TypeVar, TypeVarTuple, Unpack

from protos.errors import FailedPrecondition, Unavailable
from runtime.batched import Batched
from runtime.catalogue import Catalogue, Key, State
from runtime.chain import Chain
from runtime.ensemble import Ensemble
from runtime.failure import said_by
from runtime.metrics import Metrics, ModelMetrics
from runtime.model import Model, SharedModel
from runtime.naming import naming
from runtime.options import ChainOptions, EnsembleOptions
from runtime.prepare import Load, prepare, rehearse
from runtime.repository import Found
from runtime.served import Servable, Served
from runtime.settings import FILE, ModelSettings
from runtime.swap import Held, in_place, shared_model
from runtime.tensor_service import TensorService
from runtime.words import shown

LOADERS = 2  # models loaded at a time: each takes a core, and twice its memory while the old one still serves
ENSEMBLE_PLATFORM = "croupier_ensemble"

_log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Loader:
    """Loads models with `load`, a few at a time, and ensembles of what a catalogue has. Belongs to one event loop."""

    def __init__(self, load: Load[Model | Servable], catalogue: Catalogue, metrics: Metrics) -> None:
        self._load = load
        self._catalogue = catalogue
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(LOADERS, "load")
        self._turn = asyncio.Semaphore(LOADERS)  # whoever has one finds a thread free

    async def loaded(self, found: Found, settings: ModelSettings, serving: Served | None, gone: set[Key]) -> Served:
        """A version, ready to be put into service, which nothing may come before; that in service, if it is that still.

        `gone` are versions that the disk has no more, in whose place it may be loaded. Raises whatever loading does.
        """
        fingerprint = await asyncio.to_thread(found.fingerprint)
        same = serving is not None and (serving.fingerprint, serving.settings) == (fingerprint, settings)
        if serving is not None and same and not settings.options.parts:  # as those may be others now
            return serving
        key = (found.name, found.version)
        metrics = self._metrics.of(*key)
        async with self._turn:
            started = perf_counter()
            old = self._making_way(settings, {key} if serving is not None else gone)
            if old is not None:
                servable = await self._swapped(old, key, found.folder, settings, metrics)
            else:
                servable = await self._servable(settings, found.folder, metrics)
            seconds = perf_counter() - started
        if (later := await asyncio.to_thread(found.fingerprint)) != fingerprint:
            _log.warning("files of model %r changed during its load: load it again, unless it writes them", found.name)
            fingerprint += later  # nobody knows which of both was read: it is like no other
        try:
            with naming(found.folder / FILE):
                self._catalogue.endpoints.check(found.name, servable)
        except FailedPrecondition:
            await servable.close()
            raise
        metrics.begins(servable.memory, seconds)
        return Served(servable, metrics, fingerprint, settings)

    def close(self) -> None:
        """Gives up what is not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _making_way(self, settings: ModelSettings, keys: set[Key]) -> Key | None:
        """Which of some versions that are served must go before this one is loaded."""
        served = self._catalogue.all(settings.name).items()
        return next((k for k, each in served if k in keys and in_place(each.settings.options, settings.options)), None)

    async def _swapped(
        self, old: Key, key: Key, folder: Path, settings: ModelSettings, metrics: ModelMetrics
    ) -> Servable:
        """A version loaded in the place of one that is served. Raises whatever loading it does."""
        await self._in_thread(rehearse, self._load, settings, folder)
        replaced = self._catalogue.take(old)
        held = Held(replaced.servable, settings)
        self._catalogue.put(key, replace(replaced, servable=held, metrics=metrics))
        if old != key:
            self._catalogue.note(old, State.UNLOADING)
        try:
            await replaced.close()
            await self._in_thread(gc.collect)  # what it left in circles of references, and so the memory of the GPU
            servable = await self._servable(settings, folder, metrics)
        except BaseException as error:
            self._catalogue.take(key)
            held.fails(reason_of(error))
            raise
        held.gives_way(servable)
        return servable

    async def _servable(self, settings: ModelSettings, folder: Path, metrics: ModelMetrics) -> Servable:
        """What answers requests as the settings say, tried out. Raises whatever loading it does."""
        with naming(folder / FILE):
            match settings.options:
                case EnsembleOptions() as options:
                    return TensorService(Ensemble(options, self._part), settings, ENSEMBLE_PLATFORM, metrics)
                case ChainOptions() as options:
                    return TensorService(Chain(options, self._part), settings, ENSEMBLE_PLATFORM, metrics)
        model, times, explainer = await self._in_thread(prepare, self._load, settings, folder)
        if isinstance(model, Servable):
            return model
        batched = Batched(model, settings, metrics, times)
        return TensorService(batched, settings, model.platform, metrics, explainer)

    def _part(self, name: str) -> SharedModel:
        """The model that an ensemble has run. Raises Unavailable, as whoever loads the ensemble anew loads it too."""
        served = self._catalogue.get(name, "")
        if served is None:
            raise Unavailable(f"{shown(name)}, which it is made of, is not loaded; load one of the two")
        return shared_model(served.servable, name)

    async def _in_thread(self, work: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def reason_of(error: BaseException) -> str:
    """Why a model was not loaded, as the index and the calls that waited for it are told."""
    if isinstance(error, asyncio.CancelledError):
        return "the server stops"
    return said_by(error)
