"""What a folder's settings say after an export: what the module shows, and what its user wrote there before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from protos.errors import FailedPrecondition
from protos.tensors import datatype_of
from runtime.export.archives import Format
from runtime.model import Arrays
from runtime.sample import Sample
from runtime.settings import FILE, ModelSettings, decoded, parse_settings

Told = Mapping[str, Any]


class _Known(msgspec.Struct):
    """Of a settings file that is there, what an export looks at."""

    name: str = ""
    parameters: dict[str, Any] | None = None
    inputs: list[dict[str, Any]] = []
    outputs: list[dict[str, Any]] = []


class Before:
    """The settings that a folder has before an export, if any. Raises FailedPrecondition where they are no settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / FILE
        try:
            said = decoded(path.read_bytes() if path.exists() else b"{}", str(path))
            self._all = msgspec.convert(said, dict[str, Any])
            self._known = msgspec.convert(said, _Known)
        except OSError as error:
            raise FailedPrecondition(f"{path} cannot be read: {error.strerror}") from error
        except msgspec.ValidationError as error:
            raise FailedPrecondition(f"{path}: {error}") from error

    def freed(self, name: str, rank: int) -> set[int]:
        """The axes, but for the first, of which the settings say that any size will do."""
        shapes = [each.get("shape") for each in (*self._known.inputs, *self._known.outputs) if each.get("name") == name]
        return {
            axis
            for shape in shapes
            if isinstance(shape, list) and len(shape) == rank
            for axis in range(1, rank)
            if shape[axis] == -1
        }

    def settings(self, name: str, how: Format, tried: Sequence[Sample], *, dynamic_batch: bool) -> Told:
        """The settings of the model in one of its formats: what an export does not decide stays as it is there."""
        folder = self._folder.absolute()  # which has a name, be it written as "."
        numbered = folder.name.isdecimal()  # NAME/VERSION
        parameters = self._known.parameters or {}
        version = folder.name if numbered else parameters.get("version") or "1"
        ours = {
            "name": name or self._known.name or (folder.parent.name if numbered else folder.name),
            "implementation": how.implementation,
            "platform": how.platform,
            "parameters": parameters | {"uri": f"./{how.file}", "version": version},
            "inputs": self._tensors([each.inputs for each in tried], self._known.inputs, dynamic_batch=dynamic_batch),
            "outputs": self._tensors(
                [each.outputs for each in tried], self._known.outputs, dynamic_batch=dynamic_batch
            ),
        }
        return ours | {key: value for key, value in self._all.items() if key not in ours}

    def _tensors(self, tried: Sequence[Arrays], before: Sequence[Told], *, dynamic_batch: bool) -> list[dict[str, Any]]:
        there = {each.get("name"): each for each in before}
        tensors = []
        for name, array in tried[0].items():
            sizes = [{arrays[name].shape[axis] for arrays in tried} for axis in range(array.ndim)]
            free = {axis for axis, found in enumerate(sizes) if len(found) > 1} | self.freed(name, array.ndim)
            free |= {0} if dynamic_batch else set()
            shape = [-1 if axis in free else size for axis, size in enumerate(array.shape)]
            tensors.append({**there.get(name, {}), "name": name, "datatype": datatype_of(array.dtype), "shape": shape})
        return tensors


def tried_as(told: Told, folder: Path, how: Format, *, served: bool) -> ModelSettings:
    """The settings to try out one of a folder's files with. Raises FailedPrecondition as `read_settings` does."""
    settings = parse_settings(told, str(folder / FILE), name="", version="")
    # Here, wherever it will run; and only what is served is explained: a compiled package could not be.
    changed: dict[str, Any] = {"device": "cpu", "cuda_graphs": False} | ({} if served else {"explain": None})
    return replace(
        settings,
        implementation=how.implementation,
        platform=how.platform,
        uri=how.file,
        options=msgspec.structs.replace(settings.options, **changed),
    )
