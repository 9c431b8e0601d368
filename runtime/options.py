"""Our own options: `parameters.extra` of a model's settings.

Nobody reads there but us and a user's own class: where the class is ours, a mistyped option is refused. Seldon's agent
drops most other keys when it rewrites the file, and writes its own options there as strings: "4" is as good as 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from protos.errors import FailedPrecondition
from runtime.naming import keyed, parted

OURS = "runtime."  # how the implementations begin that this package brings
ENSEMBLE = "runtime.Ensemble"
CHAIN = "runtime.Chain"
TORCHSCRIPT = "runtime.TorchScriptModel"
EXPORTED = "runtime.ExportedModel"
ONNX = "runtime.OnnxModel"

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=60)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Weight = Annotated[float, msgspec.Meta(gt=0)]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`parameters.extra`."""

    device: str = "cpu"  # or "cuda", "cuda:1"
    threads: _Positive = 1  # that PyTorch may use for one run of this model
    max_batch_size: Count | None = None  # before the key of the same name outside, which Seldon drops
    max_batch_time: Seconds | None = None
    max_queue: _Positive = 1024  # calls that may wait; the next one is refused
    warm_up_size: _Positive = 1  # what a free dimension, other than the first, is tried with

    @classmethod
    def known(cls) -> tuple[str, ...]:
        """The keys that there are."""
        return cls.__struct_fields__

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


class _CompositeOptions(Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`parameters.extra` of what is made of other models, and runs nothing itself."""

    @classmethod
    def known(cls) -> tuple[str, ...]:
        """The keys that there are: others are for its parts."""
        return tuple(key for key in cls.__struct_fields__ if key not in Options.__struct_fields__)


class EnsembleOptions(_CompositeOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
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


class ChainOptions(_CompositeOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`parameters.extra` of a chain."""

    steps: Annotated[list[str], msgspec.Meta(min_length=1)]

    @property
    def parts(self) -> tuple[str, ...]:
        """The models that it is made of."""
        return tuple(self.steps)


class _SharedOptions(Options, frozen=True, forbid_unknown_fields=False):
    """Ours among those of a user's class."""


def read_options(implementation: str, extra: Mapping[str, Any]) -> Options:
    """What `parameters.extra` says to a model of an implementation.

    Raises FailedPrecondition with the key and what it should be.
    """
    kind = _kind(implementation)
    if idle := next((key for key in Options.known() if key not in kind.known() and extra.get(key) is not None), ""):
        raise FailedPrecondition(
            f"parameters.extra.{idle}: it has no effect on {implementation}, which runs nothing itself; set it for the "
            f"models that it is made of"
        )
    try:
        return msgspec.convert(extra, kind, strict=False)
    except msgspec.ValidationError as error:
        raise FailedPrecondition(keyed(error, "parameters.extra") + _hint(error, extra, kind)) from None


def _kind(implementation: str) -> type[Options]:
    if implementation == ENSEMBLE:
        return EnsembleOptions
    if implementation == CHAIN:
        return ChainOptions
    return FormatOptions if implementation.startswith(OURS) else _SharedOptions


def _hint(error: msgspec.ValidationError, extra: Mapping[str, Any], options: type[Options]) -> str:
    """What would be right in `parameters.extra`, where the fault does not say it."""
    key, what = parted(error)
    if "unknown field" in what:
        known = ExplainOptions.__struct_fields__ if key.startswith("explain") else options.known()
        return f"; there are {', '.join(known)}"
    if key.startswith("combine"):
        return "; write mean, vote or stack: the weights stand in members"
    if key.startswith("members["):
        return "".join(f"; it is {each!r}" for each, weight in extra["members"].items() if not _is(weight, _Weight))
    return ""


def _is(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        return False
    return True
