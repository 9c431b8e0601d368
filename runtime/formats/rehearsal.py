"""How a model for a GPU is tried out while another has the GPU's memory: on the CPU, if it can run there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import msgspec

from runtime.formats import compiled
from runtime.formats.exported import WELL_KNOWN
from runtime.formats.gpu import wants_graphs
from runtime.formats.pytorch import device_of
from runtime.naming import naming
from runtime.options import EXPORTED, TORCHSCRIPT
from runtime.repository import locate
from runtime.settings import FILE, ModelSettings

PYTORCH = (TORCHSCRIPT, EXPORTED)
ON_GPU = b'"type": "cuda"'  # as an exported program says where its weights were


def on_cpu(settings: ModelSettings, folder: Path) -> ModelSettings | None:
    """The settings that load it there; None for a `.pt2` archive made on a GPU, as that loads nowhere else.

    Raises FailedPrecondition where settings or archive do not fit the GPU that it is for.
    """
    changed: dict[str, Any] = {"device": "cpu"}
    with naming(folder / FILE):
        if settings.implementation in PYTORCH:
            wants_graphs(settings)
            changed["cuda_graphs"] = False
        if settings.implementation == EXPORTED and _made_on_gpu(locate(folder, settings.uri, WELL_KNOWN), settings):
            return None
    return replace(settings, options=msgspec.structs.replace(settings.options, **changed))


def _made_on_gpu(path: Path, settings: ModelSettings) -> bool:
    """Whether an archive is compiled for a GPU, or has its weights there. Raises FailedPrecondition if not for ours."""
    if not is_zipfile(path):
        return False  # what is wrong with it shows when it is loaded
    with ZipFile(path) as archive:
        names = archive.namelist()  # all lie in one folder
        weights = [archive.read(name) for name in names if name.endswith("_config.json")]
    if any(name.partition("/")[2].startswith(compiled.FOLDER) for name in names):
        compiled.check_fit(path, device_of(settings))
        return True
    return any(ON_GPU in each for each in weights)
