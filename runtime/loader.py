"""Makes what answers requests of a model's folder, in threads beside the event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from protos.errors import FailedPrecondition
from runtime.batched import Batched
from runtime.chain import Chain
from runtime.endpoints import Endpoints
from runtime.ensemble import Ensemble
from runtime.failure import said_by
from runtime.metrics import ModelMetrics
from runtime.model import Model
from runtime.naming import naming
from runtime.options import ChainOptions, EnsembleOptions
from runtime.parts import Members
from runtime.prepare import Load, prepare, rehearse
from runtime.served import Servable
from runtime.settings import FILE, ModelSettings
from runtime.tensor_service import TensorService

LOADERS = 2  # models loaded at a time: each takes a core, and twice its memory while the old one still serves
ENSEMBLE_PLATFORM = "croupier_ensemble"

P = ParamSpec("P")
T = TypeVar("T")


class Loader:
    """Loads models with `load`, and ensembles of those that `find` finds. Belongs to one event loop.

    `endpoints` are those of the models in service. A few load at a time: whoever has a `turn` finds a thread free.
    """

    def __init__(self, load: Load[Model | Servable], find: Members, endpoints: Endpoints) -> None:
        self._load = load
        self._find = find
        self._endpoints = endpoints
        self._threads = ThreadPoolExecutor(LOADERS, "load")
        self.turn = asyncio.Semaphore(LOADERS)

    async def servable(self, settings: ModelSettings, folder: Path, metrics: ModelMetrics) -> Servable:
        """What answers requests as the settings say, tried out. Raises whatever loading it does."""
        with naming(folder / FILE):
            match settings.options:
                case EnsembleOptions() as options:
                    return TensorService(Ensemble(options, self._find), settings, ENSEMBLE_PLATFORM, metrics)
                case ChainOptions() as options:
                    return TensorService(Chain(options, self._find), settings, ENSEMBLE_PLATFORM, metrics)
        model, times, explainer = await self._in_thread(prepare, self._load, settings, folder)
        if isinstance(model, Servable):
            try:
                self._endpoints.check(settings.name, model)  # and nobody has a turn until it is in service
            except FailedPrecondition:
                await model.close()
                raise
            return model
        batched = Batched(model, settings, metrics, times)
        return TensorService(batched, settings, model.platform, metrics, explainer)

    async def rehearse(self, settings: ModelSettings, folder: Path) -> None:
        """Tries a model for a GPU out on the CPU. Raises whatever loading it does."""
        await self._in_thread(rehearse, self._load, settings, folder)

    async def release(self) -> None:
        """Frees what closed models left in circles of references, and so the memory of a GPU for the next."""
        await self._in_thread(gc.collect)

    def close(self) -> None:
        """Gives up what is not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))


def reason_of(error: BaseException) -> str:
    """Why a model was not loaded, as the index and the calls that waited for it are told."""
    if isinstance(error, asyncio.CancelledError):
        return "the server stops"
    return said_by(error)
