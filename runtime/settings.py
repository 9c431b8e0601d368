"""`model-settings.json`: MLServer's file, and our own options under `parameters.extra`.

MLServer ignores keys that it does not know, and its files live from it, so they are ignored here too. Under
`parameters.extra` nobody reads but us and a user's own class: where the class is ours, a mistyped option is refused.
Seldon's agent drops most other keys when it rewrites the file, and writes its own options there as strings: "4" is as
good as 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec

from protos.errors import FailedPrecondition
from protos.tensors import DATATYPES
from runtime.model import TensorSpec
from runtime.unread import warn, warn_of_parameters

FILE = "model-settings.json"
VARIABLES = "MLSERVER_MODEL_"  # how the variables begin that tell what the files do not

_Dimension = Annotated[int, msgspec.Meta(ge=-1)]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Weight = Annotated[float, msgspec.Meta(gt=0)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=60)]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`parameters.extra`."""

    device: str = "cpu"  # or "cuda", "cuda:1"
    threads: _Positive = 1  # that PyTorch may use for one run of this model
    max_batch_size: _Count | None = None  # before the key of the same name outside, which Seldon drops
    max_batch_time: _Seconds | None = None
    max_queue: _Positive = 1024  # calls that may wait; the next one is refused
    warm_up_size: _Positive = 1  # what a free dimension, other than the first, is tried with

    @property
    def parts(self) -> tuple[str, ...]:
        """The models that it is made of, by name: none but for an ensemble or a chain."""
        return ()

    @property
    def explained(self) -> ExplainOptions | None:
        """How explanations are given: not at all, but by a model of one of our formats."""
        return None

    @property
    def gpu(self) -> str:
        """The GPU that the model lies on, as "cuda:1"; empty for one on the CPU, and where only a user's code knows."""
        return ""


class ExplainOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`parameters.extra.explain`: requests may ask why the model answered so, which runs it `steps` times and more."""

    baseline: dict[str, float | list[Any]] = {}  # of an input: a number, or lists that fit a row; 0 where none is given
    steps: _Positive = 50  # of a request that says nothing
    max_steps: _Positive = 500
    max_rows: _Positive = 64  # of one request
    max_queue: _Positive = 8  # explanations not yet given; the next one is refused

    def __post_init__(self) -> None:
        if self.steps > self.max_steps:
            raise ValueError(f"steps: {self.steps} is more than max_steps, {self.max_steps}")


class FormatOptions(Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`parameters.extra` of a model of one of our formats."""

    explain: ExplainOptions | bool | None = None
    cuda_graphs: bool = False  # of a PyTorch model on a GPU: its launches are recorded once and replayed
    overlap: bool = False  # a reload on a GPU may have the old and the new one there for a moment; then no call waits

    @property
    def explained(self) -> ExplainOptions | None:
        """How explanations are given, if they are."""
        return ExplainOptions() if self.explain is True else self.explain or None

    @property
    def gpu(self) -> str:
        """The GPU that the model lies on, as "cuda:1"; empty for one on the CPU."""
        kind, _, number = self.device.partition(":")
        return f"cuda:{number or 0}" if kind == "cuda" else ""


class EnsembleOptions(Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`parameters.extra` of an ensemble."""

    members: Annotated[dict[str, _Weight], msgspec.Meta(min_length=1)]
    combine: Literal["mean", "vote", "stack"] = "mean"
    stacker: str = ""  # the model that takes the members' outputs, with "stack"

    def __post_init__(self) -> None:
        if (self.combine == "stack") != bool(self.stacker):
            raise ValueError(
                'stacker: names the model that takes the members\' outputs, with combine "stack" and only there'
            )

    @property
    def parts(self) -> tuple[str, ...]:
        """The models that it is made of."""
        return (*self.members, *([self.stacker] if self.stacker else []))


class ChainOptions(Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`parameters.extra` of a chain."""

    steps: Annotated[list[str], msgspec.Meta(min_length=1)]

    @property
    def parts(self) -> tuple[str, ...]:
        """The models that it is made of."""
        return tuple(self.steps)


class _SharedOptions(Options, frozen=True, forbid_unknown_fields=False):
    """Ours among those of a user's class."""


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
    max_batch_size: _Count | None = None
    max_batch_time: _Seconds | None = None
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


OURS = "runtime."  # how the implementations begin that this package brings
ENSEMBLE = "runtime.Ensemble"
CHAIN = "runtime.Chain"
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
    try:
        file = msgspec.convert(said, _File, strict=False)
    except msgspec.ValidationError as error:
        raise FailedPrecondition(_sentence(path, "", error)) from None
    parameters = file.parameters or _Parameters()
    options_of = _options(file.implementation)
    extra = parameters.extra or {}
    try:
        options = msgspec.convert(extra, options_of, strict=False)
    except msgspec.ValidationError as error:
        hint = _hint(str(error), extra, options_of)
        raise FailedPrecondition(_sentence(path, "parameters.extra", error) + hint) from None
    _warn_of_unread(said, path, options)
    max_batch_size = _first(options.max_batch_size, file.max_batch_size, MAX_BATCH_SIZE)
    return ModelSettings(
        name=file.name or name,
        version=parameters.version or version,
        implementation=file.implementation,
        platform=file.platform or "",
        inputs=_specs(path, "inputs", file.inputs),
        outputs=_specs(path, "outputs", file.outputs),
        uri=(parameters.uri or "").removeprefix("file://"),
        max_batch_size=max(max_batch_size, 1),  # MLServer's 0 means off, and so does 1
        max_batch_time=_first(options.max_batch_time, file.max_batch_time, 0.0),
        options=options,
        extra=extra,
        content_type=parameters.content_type or "",
    )


def _options(implementation: str) -> type[Options]:
    if implementation == ENSEMBLE:
        return EnsembleOptions
    if implementation == CHAIN:
        return ChainOptions
    return FormatOptions if implementation.startswith(OURS) else _SharedOptions


def _hint(says: str, extra: Mapping[str, Any], options: type[Options]) -> str:
    """What would be right in `parameters.extra`, where the fault does not say it."""
    _, _, where = says.partition(" - at `$")
    if "unknown field" in says:
        known = (ExplainOptions if where.startswith(".explain") else options).__struct_fields__
        return f"; there are {', '.join(known)}"
    if where.startswith(".combine"):
        return "; write mean, vote or stack: the weights stand in members"
    if where.startswith(".members["):
        return "".join(f"; it is {each!r}" for each, weight in extra["members"].items() if not _is(weight, _Weight))
    return ""


def _is(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        return False
    return True


def _filled(said: Any, told: Any) -> Any:
    """What a file says, and what is told where it says nothing: an object key by key, as for MLServer."""
    if isinstance(told, Mapping) and (said is None or isinstance(said, dict)):
        return {**told, **{key: _filled(value, told.get(key)) for key, value in (said or {}).items()}}
    return said


def _warn_of_unread(file: Mapping[str, Any], path: str, options: Options) -> None:
    warn(path, file, _File.__struct_fields__, options.__struct_fields__)
    if file["implementation"].startswith(OURS):
        warn_of_parameters(path, file.get("parameters") or {}, _Parameters.__struct_fields__, options.__struct_fields__)


def _first(*choices: Any) -> Any:
    return next(choice for choice in choices if choice is not None)


def _specs(path: str, key: str, tensors: list[_Tensor]) -> tuple[TensorSpec, ...]:
    specs: dict[str, TensorSpec] = {}
    for i, tensor in enumerate(tensors):
        if tensor.datatype not in DATATYPES:
            raise FailedPrecondition(
                f"{path}: {key}[{i}].datatype: {tensor.datatype!r} is none of {', '.join(DATATYPES)}"
            )
        if tensor.name in specs:
            raise FailedPrecondition(f"{path}: {key}[{i}].name: {tensor.name!r} is declared twice")
        specs[tensor.name] = TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape), tensor.parameters or {})
    return tuple(specs.values())


def _sentence(path: str, prefix: str, error: Exception) -> str:
    """Takes msgspec's "what - at `$.where`" with the file and the whole path in front."""
    what, _, where = str(error).partition(" - at `$")
    key = (prefix + where.rstrip("`")).lstrip(".")
    return f"{path}: {key}: {what}" if key else f"{path}: {what}"
