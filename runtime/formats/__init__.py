"""Model formats by the `implementation` that a settings file names. A format is imported when its first model loads."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from protos.errors import FailedPrecondition
from runtime.settings import FILE

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.model import Model
    from runtime.settings import ModelSettings

FORMATS = {"runtime.TorchScriptModel": "runtime.formats.torchscript"}


def load(settings: ModelSettings, folder: Path) -> Model:
    """The model in a folder, not yet tried out. Raises FailedPrecondition saying why it cannot be loaded."""
    module = FORMATS.get(settings.implementation)
    if module is None:
        raise FailedPrecondition(
            f"{folder / FILE}: implementation: {settings.implementation!r} is not supported; "
            f"this server has {', '.join(FORMATS)}"
        )
    model: Model = import_module(module).load(settings, folder)
    return model
