"""From a model's folder to a model that has shown that it works: loaded, warmed up, compared with its sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

from protos.errors import FailedPrecondition
from runtime.explain import Explainer
from runtime.explainer import explainer_of
from runtime.model import Model
from runtime.naming import naming
from runtime.sample import check_sample, read_sample
from runtime.served import Servable
from runtime.settings import FILE, ModelSettings
from runtime.warmup import NO_SAMPLE, Times, warm_up

Loaded = TypeVar("Loaded", bound=Model | Servable)
Load = Callable[[ModelSettings, Path], Loaded]


class Prepared(NamedTuple, Generic[Loaded]):
    """A model that works, the times of its runs, and what explains it, if its settings say so; a servable alone."""

    model: Loaded
    times: Times = MappingProxyType({})
    explainer: Explainer | None = None


def prepare(load: Load[Loaded], settings: ModelSettings, folder: Path) -> Prepared[Loaded]:
    """The model that `load` makes of a folder, tried out.

    Blocks while it loads. Raises FailedPrecondition naming what is wrong, and whatever else `load` raises; a model that
    failed is closed.
    """
    model = load(settings, folder)
    if isinstance(model, Servable):
        return Prepared(model)
    try:
        with naming(folder / FILE):
            sample = read_sample(folder, model)
            inputs = sample.inputs if sample else NO_SAMPLE
            times = warm_up(
                model,
                max_rows=settings.max_batch_size,
                free_size=settings.options.warm_up_size,
                sample=inputs,
                # Cut down to an index out of range, one would make the GPU useless to the whole process.
                negative=not settings.options.gpu,
            )
            if sample:
                check_sample(model, sample)
            return Prepared(model, times, explainer_of(model, settings, inputs))
    except BaseException:
        model.close()
        raise


def rehearse(load: Load[Model | Servable], settings: ModelSettings, folder: Path) -> None:
    """Tries out on the CPU what is to be loaded on a GPU, and closes it, where its format can run there.

    Blocks while it does. Raises FailedPrecondition naming what is wrong, and whatever else `load` raises.
    """
    from runtime.formats.rehearsal import on_cpu  # PyTorch: only where there is a GPU

    there = on_cpu(settings, folder)
    if there is None:
        return
    try:
        model = prepare(load, there, folder).model
    except FailedPrecondition as error:
        raise FailedPrecondition(
            f"{error.message}; so it was found on the CPU, where it is tried out before the one on "
            f"{settings.options.gpu} is let go: if it runs on GPUs only, unload that first, or set "
            f"parameters.extra.overlap"
        ) from error
    if not isinstance(model, Servable):
        model.close()
