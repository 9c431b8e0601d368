"""What the server asks of a loaded model, whatever its format."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from protos.errors import InvalidArgument
from protos.tensors import DATATYPES, datatype_of
from runtime.words import described

Arrays = Mapping[str, NDArray[Any]]
Parameters = Mapping[str, bool | int | float | str]

NOTHING: Parameters = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A declared input or output: its V2 datatype, its shape with -1 for any size, and what else its metadata tells."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Mapping[str, Any] = field(default_factory=lambda: NOTHING, compare=False)

    @property
    def counts_rows(self) -> bool:
        """Whether its first dimension is of any size."""
        return self.shape[:1] == (-1,)

    def __str__(self) -> str:
        return f"{self.datatype} {list(self.shape)}"


class Model(Protocol):
    """A model of one format, ready to run; `tests/runtime/contract.py` says what every one of them keeps to.

    `run` is called by one thread at a time, though not always by the same one. It must not write to its inputs, which
    may be views of a request's bytes, must not answer one row differently because of another, and what it returns is
    its caller's: no later run may write to that.
    """

    @property
    def name(self) -> str:
        """What clients ask for."""

    @property
    def version(self) -> str:
        """Empty for a model that has none."""

    @property
    def platform(self) -> str:
        """Project and format, in the protocol's spelling: "pytorch_torchscript"."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns."""

    @property
    def memory(self) -> int:
        """Bytes of its parameters, buffers and constants, wherever they are; 0 where its format cannot tell.

        Of a compiled package its code, too.
        """

    @property
    def reads_parameters(self) -> bool:
        """Whether an answer depends on the parameters of its request; then only calls of equal ones share a run."""

    def run(self, arrays: Arrays, parameters: Parameters = NOTHING) -> Arrays:
        """All outputs for all inputs, by name. May raise anything; the caller makes it an answer."""

    def close(self) -> None:
        """Lets go of memory and devices; `run` is not called again. May be called twice."""


@runtime_checkable
class Differentiable(Protocol):
    """A model whose outputs PyTorch can differentiate by its inputs."""

    def differentiable(self) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
        """The model as a function of tensors by name, on the model's device; it may write to them.

        Safe beside the model's runs. Raises FailedPrecondition where an archive has no gradients.
        """


class SharedModel(Protocol):
    """What runs on arrays for many callers at once: a model behind its batcher, or several of them together."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns."""

    @property
    def memory(self) -> int:
        """Bytes that it holds of its own; 0 where that cannot be known."""

    @property
    def reads_parameters(self) -> bool:
        """Whether an answer depends on the parameters of its request."""

    @property
    def shares_runs(self) -> bool:
        """Whether the rows of several calls may go into one run."""

    def admit(self) -> None:
        """Raises ResourceExhausted when no further call may wait."""

    def run(self, arrays: Arrays, parameters: Parameters = NOTHING, deadline: float | None = None) -> Awaitable[Arrays]:
        """All outputs for all inputs, of the declared names, datatypes and ranks. Raises a CallError.

        `deadline` is on the loop's clock; what has not begun by then is not run.
        """

    async def close(self) -> None:
        """Answers the calls that it has, then lets go of memory and devices."""


def misfit(outputs: tuple[TensorSpec, ...], arrays: Arrays, rows: int | None = None) -> str:
    """What of a model's answer is not as declared, in words; nothing if all is. A shared batch has so many `rows`."""
    for spec in outputs:
        array = arrays[spec.name]
        sizes = zip(spec.shape, array.shape, strict=False)
        if (
            array.dtype != DATATYPES[spec.datatype]
            or array.ndim != len(spec.shape)
            or any(declared not in (-1, size) for declared, size in sizes)
        ):
            return f"output {spec.name!r} is declared {spec}; the model returns {told(array)}"
        if rows is not None and len(array) != rows:
            return f"output {spec.name!r} has {len(array)} rows for a batch of {rows} rows"
    return ""


def rows_of(arrays: Arrays) -> int:
    """How many rows arrays have. Raises InvalidArgument where some have more than others."""
    rows = -1
    for array in arrays.values():
        if rows not in (-1, len(array)):
            counts = {name: len(array) for name, array in arrays.items()}
            raise InvalidArgument(f"the inputs differ in their number of rows: {described(counts)}")
        rows = len(array)
    return rows


def told(array: NDArray[Any]) -> str:
    """Datatype and shape of an array, in V2's words where it has them."""
    try:
        return f"{datatype_of(array.dtype)} {list(array.shape)}"
    except TypeError:
        return f"{array.dtype} {list(array.shape)}"


def shares_runs(model: Model, max_rows: int) -> bool:
    """Whether calls may share a run of up to `max_rows` rows: every input and output counts them."""
    return max_rows > 1 and all(spec.counts_rows for spec in (*model.inputs, *model.outputs))
