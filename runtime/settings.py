"""`model-settings.json`: MLServer's file, with our own options under `parameters.extra`.

MLServer ignores keys that it does not know, and its files live from it, so they are ignored here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from protos.errors import FailedPrecondition
from protos.tensors import DATATYPES
from runtime.model import TensorSpec
from runtime.naming import keyed, naming
from runtime.options import OURS, Count, Options, Seconds, read_options
from runtime.unread import warn, warn_of_parameters

FILE = "model-settings.json"
VARIABLES = "MLSERVER_MODEL_"  # how the variables begin that tell what the files do not

_Dimension = Annotated[int, msgspec.Meta(ge=-1)]


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: list[_Dimension]
    parameters: dict[str, Any] | None = None


class _Parameters(msgspec.Struct, frozen=True):
    uri: str | None = None
    version: str | None = None
    content_type: str | None = None
    extra: dict[str, Any] | None = None


class _File(msgspec.Struct, frozen=True):
    implementation: str
    name: str | None = None
    platform: str | None = None
    inputs: list[_Tensor] = []
    outputs: list[_Tensor] = []
    max_batch_size: Count | None = None
    max_batch_time: Seconds | None = None
    parameters: _Parameters | None = None


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What a settings file says, defaults filled in. Batches count rows; `max_batch_time` is in seconds."""

    name: str
    version: str
    implementation: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    uri: str  # a path, relative to the folder of the file; empty: a well-known name in it
    max_batch_size: int
    max_batch_time: float
    options: Options
    extra: Mapping[str, Any]  # all of `parameters.extra`, as a user's class finds it
    content_type: str  # which its metadata tells; V2's datatypes say as much


MAX_BATCH_SIZE = 64  # rows, where a settings file says nothing


def read_settings(
    path: Path, *, name: str, version: str, told: Mapping[str, Any] = MappingProxyType({})
) -> ModelSettings:
    """The settings at `path`; where the file says nothing `told` counts, in its shape, and then `name` and `version`.

    Raises FailedPrecondition with the file, the key and what it should be.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FailedPrecondition(f"{path} cannot be read: {error.strerror}") from None
    said = _filled(decoded(content, str(path)), told)
    return parse_settings(said, f"{path} and {VARIABLES}*" if told else str(path), name=name, version=version)


def decoded(content: bytes | str, where: str) -> Any:
    """What JSON says. Raises FailedPrecondition, with `where` it stands, for what is none."""
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise FailedPrecondition(f"{where}: {error}") from None
    except UnicodeError:
        raise FailedPrecondition(f"{where}: it is not UTF-8") from None
    except RecursionError:
        raise FailedPrecondition(f"{where}: it is nested too deeply") from None


def parse_settings(said: Any, path: str, *, name: str, version: str) -> ModelSettings:
    """The settings that a file's JSON says, as `read_settings` reads them; `path` is where it is from."""
    with naming(path):
        try:
            file = msgspec.convert(said, _File, strict=False)
        except msgspec.ValidationError as error:
            raise FailedPrecondition(keyed(error)) from None
        parameters = file.parameters or _Parameters()
        extra = parameters.extra or {}
        options = read_options(file.implementation, extra)
        inputs, outputs = _specs("inputs", file.inputs), _specs("outputs", file.outputs)
    _warn_of_unread(said, path, options)
    max_batch_size = _first(options.max_batch_size, file.max_batch_size, MAX_BATCH_SIZE)
    return ModelSettings(
        name=file.name or name,
        version=parameters.version or version,
        implementation=file.implementation,
        platform=file.platform or "",
        inputs=inputs,
        outputs=outputs,
        uri=(parameters.uri or "").removeprefix("file://"),
        max_batch_size=max(max_batch_size, 1),  # MLServer's 0 means off, and so does 1
        max_batch_time=_first(options.max_batch_time, file.max_batch_time, 0.0),
        options=options,
        extra=extra,
        content_type=parameters.content_type or "",
    )


def _filled(said: Any, told: Any) -> Any:
    """What a file says, and what is told where it says nothing: an object key by key, as for MLServer."""
    if isinstance(told, Mapping) and (said is None or isinstance(said, dict)):
        return {**told, **{key: _filled(value, told.get(key)) for key, value in (said or {}).items()}}
    return said


def _warn_of_unread(file: Mapping[str, Any], path: str, options: Options) -> None:
    warn(path, file, _File.__struct_fields__, options.known())
    if file["implementation"].startswith(OURS):
        warn_of_parameters(path, file.get("parameters") or {}, _Parameters.__struct_fields__, options.known())


def _first(*choices: Any) -> Any:
    return next(choice for choice in choices if choice is not None)


def _specs(key: str, tensors: list[_Tensor]) -> tuple[TensorSpec, ...]:
    specs: dict[str, TensorSpec] = {}
    for i, tensor in enumerate(tensors):
        if tensor.datatype not in DATATYPES:
            raise FailedPrecondition(f"{key}[{i}].datatype: {tensor.datatype!r} is none of {', '.join(DATATYPES)}")
        if tensor.name in specs:
            raise FailedPrecondition(f"{key}[{i}].name: {tensor.name!r} is declared twice")
        specs[tensor.name] = TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape), tensor.parameters or {})
    return tuple(specs.values())
