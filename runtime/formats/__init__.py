"""Model formats by the `implementation` that a settings file names. A format is imported when its first model loads."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from typing import TYPE_CHECKING

from protos.errors import FailedPrecondition
from runtime.options import CHAIN, ENSEMBLE, EXPORTED, ONNX, OURS, TORCHSCRIPT
from runtime.served import Servable
from runtime.settings import FILE

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.model import Model
    from runtime.settings import ModelSettings

FORMATS = {
    TORCHSCRIPT: "runtime.formats.torchscript",
    EXPORTED: "runtime.formats.exported",
    ONNX: "runtime.formats.onnx",
}
_OURS = (*FORMATS, ENSEMBLE, CHAIN)
USER_CODE = "runtime.formats.user_code"  # any other name is that of a user's class


def load(settings: ModelSettings, folder: Path) -> Model:
    """The model in a folder, not yet tried out. Not in an event loop.

    Raises FailedPrecondition saying why it cannot be loaded.
    """
    loaded = load_any(settings, folder)
    if isinstance(loaded, Servable):
        asyncio.run(loaded.close())
        raise FailedPrecondition(f"{folder / FILE}: implementation: {settings.implementation!r} does not run on arrays")
    return loaded


def load_any(settings: ModelSettings, folder: Path) -> Model | Servable:
    """The model in a folder, as `load`, or what answers whole requests: a class that was written for MLServer."""
    name = settings.implementation
    if name.startswith(OURS) and name not in FORMATS:
        raise FailedPrecondition(
            f"{folder / FILE}: implementation: {name!r} is not supported; this server has {', '.join(_OURS)}, and a "
            f"class of your own needs a module of another name"
        )
    # Each thread that runs models gets so many beside it, and where the system has no more the process ends.
    if name in FORMATS and (threads := settings.options.threads) > (cores := os.cpu_count() or 1):
        raise FailedPrecondition(
            f"{folder / FILE}: parameters.extra.threads: {threads}; this machine has {cores} cores"
        )
    loaded: Model | Servable = import_module(FORMATS.get(name, USER_CODE)).load(settings, folder)
    return loaded
