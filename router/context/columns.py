"""Features read from the columns of an input tensor."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

from protos.errors import InvalidArgument
from protos.messages import ModelInferRequest, ModelMetadataResponse
from protos.tensors import inputs_of
from router.config.context import Feature, Features
from router.context.features import Finish, Value, plain, refusal

Read: TypeAlias = Callable[[ModelInferRequest, Any, bytes | None, list[Value]], None]
"""`(request, tensor, raw buffer, values)` writes the values in their places.

The tensor is None where the request has none of that name, the buffer where it came as typed contents.
"""

_SHAPES = "a context is read from [rows, columns], [rows, ..., columns] or [columns]"


@dataclass(frozen=True, slots=True)
class Slot:
    """A feature that is read, and where its value goes."""

    place: int
    name: str
    feature: Feature
    finish: Finish

    @property
    def column(self) -> int:
        """Of the tensor."""
        return int(self.feature.column or 0)


class _Format(NamedTuple):
    code: str  # of the struct module
    size: int  # in bytes
    typed: str  # field of the typed contents


_NUMBERS: Mapping[str, _Format] = {
    "BOOL": _Format("?", 1, "bool_contents"),
    "UINT8": _Format("B", 1, "uint_contents"),
    "UINT16": _Format("H", 2, "uint_contents"),
    "UINT32": _Format("I", 4, "uint_contents"),
    "UINT64": _Format("Q", 8, "uint64_contents"),
    "INT8": _Format("b", 1, "int_contents"),
    "INT16": _Format("h", 2, "int_contents"),
    "INT32": _Format("i", 4, "int_contents"),
    "INT64": _Format("q", 8, "int64_contents"),
    "FP32": _Format("f", 4, "fp32_contents"),
    "FP64": _Format("d", 8, "fp64_contents"),
}
_FRACTIONS = {"FP32", "FP64"}
_WORDS = ["BYTES", *(datatype for datatype in _NUMBERS if datatype not in _FRACTIONS)]


def check_columns(context: Features, inputs: Iterable[ModelMetadataResponse.TensorMetadata]) -> None:
    """Raises ValueError for a feature that no request for a model with these inputs can have.

    A model that declares no inputs takes any.
    """
    declared = {tensor.name: tensor for tensor in inputs}
    for name, feature in context.items():
        if not (declared and feature.tensor):
            continue
        tensor = declared.get(feature.tensor)
        if tensor is None:
            raise ValueError(f"{name}.tensor: there is no input {feature.tensor!r}; there are {', '.join(declared)}")
        takes = _takes(feature)
        if tensor.datatype not in takes:
            raise ValueError(f"{name}.tensor: {feature.tensor!r} is {tensor.datatype}; right are {', '.join(takes)}")
        shape = tensor.shape[:]
        if not shape:
            raise ValueError(f"{name}.tensor: {feature.tensor!r} has the shape []; {_SHAPES}")
        inner = shape[1:] or shape
        if min(inner) >= 0 and math.prod(inner) <= int(feature.column or 0):
            raise ValueError(f"{name}.column: {feature.tensor!r} has {math.prod(inner)} column(s), counted from 0")


def readers(slots: Iterable[Slot]) -> list[tuple[str, Read]]:
    """What reads these features, each with the name of its tensor."""
    groups: list[list[Slot]] = []
    single: list[Slot] = []
    for slot in slots:
        if slot.feature.levels or slot.feature.rows == "mean":
            single.append(slot)
            continue
        # A group reads each column once, so a second feature of the same column goes into the next.
        for group in groups:
            if group[0].feature.tensor == slot.feature.tensor and slot.column not in [each.column for each in group]:
                group.append(slot)
                break
        else:
            groups.append([slot])
    return [(group[0].feature.tensor, _of_row(group)) for group in groups] + [
        (slot.feature.tensor, _of_array(slot)) for slot in single
    ]


def sole_row(slots: Sequence[Slot]) -> Callable[[ModelInferRequest], tuple[float, ...] | None] | None:
    """What reads all of these features in one look, where they are columns of one tensor, in their order.

    It answers None for a request that needs a closer look: all but one row of fractions, raw, in the only tensor, none
    of them missing or outlying. Most requests are such, and this takes half the time.
    """
    names = {slot.feature.tensor for slot in slots}
    if len(names) != 1 or "" in names or any(slot.feature.levels or slot.feature.rows == "mean" for slot in slots):
        return None
    columns = [slot.column for slot in slots]
    if columns != sorted(set(columns)):
        return None
    (name,), last = names, columns[-1]
    formats = {datatype: (_unpacker(columns, _NUMBERS[datatype]), _NUMBERS[datatype].size) for datatype in _FRACTIONS}
    least = max(slot.feature.least for slot in slots)
    greatest = min(slot.feature.greatest for slot in slots)

    def read(request: ModelInferRequest) -> tuple[float, ...] | None:
        tensors, buffers = request.inputs, request.raw_input_contents
        if len(tensors) != 1 or len(buffers) != 1:
            return None
        tensor, buffer = tensors[0], buffers[0]
        shape, told = tensor.shape[:], formats.get(tensor.datatype)
        if told is None or tensor.name != name or len(shape) != 2 or shape[0] != 1 or shape[1] <= last:  # noqa: PLR2004
            return None
        unpack, size = told
        if len(buffer) != size * shape[1]:
            return None
        row = unpack(buffer)
        return row if least <= min(row) and max(row) <= greatest and not math.isnan(sum(row)) else None

    return read


def malformed(request: ModelInferRequest) -> NoReturn:
    """Raises InvalidArgument, with the words of whoever reads all of a request."""
    inputs_of(request)
    raise InvalidArgument("the inputs and their buffers do not go together")


def _of_row(group: list[Slot]) -> Read:
    """Numbers of the first row, unpacked at once and without a look at the rest of the tensor."""
    group = sorted(group, key=lambda slot: slot.column)
    columns = [slot.column for slot in group]
    formats = {datatype: (_unpacker(columns, told), told.size, told.typed) for datatype, told in _NUMBERS.items()}
    targets = [(slot.place, slot.finish) for slot in group]
    strict = next((slot for slot in group if slot.feature.rows == "one"), group[-1])
    widest = group[-1]
    last = widest.column

    def read(request: ModelInferRequest, tensor: Any, buffer: bytes | None, values: list[Value]) -> None:
        if tensor is None:
            for place, finish in targets:
                values[place] = finish(None)
            return
        shape, told = tensor.shape[:], formats.get(tensor.datatype)
        rows, width = shape if len(shape) == 2 else _laid_out(shape)  # noqa: PLR2004
        if told is None or width <= last or (rows != 1 and (rows < 1 or strict.feature.rows == "one")):
            check(tensor, strict)
            check(tensor, widest)
            malformed(request)
        unpack, size, typed = told
        row: Sequence[Any]
        if buffer is not None:
            if len(buffer) != size * rows * width:
                malformed(request)
            row = unpack(buffer)
        else:
            contents = getattr(tensor.contents, typed)
            if len(contents) != rows * width:
                malformed(request)
            row = [contents[column] for column in columns]
        for (place, finish), number in zip(targets, row, strict=True):
            values[place] = finish(float(number))

    return read


def _unpacker(columns: Sequence[int], told: _Format) -> Callable[[bytes], tuple[Any, ...]]:
    """Of the numbers in some columns of a row, ascending: what lies between them is skipped as padding."""
    gaps = [after - before - 1 for before, after in zip([-1, *columns], columns, strict=False)]
    return struct.Struct("<" + "".join(f"{gap * told.size}x{told.code}" for gap in gaps)).unpack_from


def _of_array(slot: Slot) -> Read:
    """A word, or the mean of the rows, by way of NumPy."""
    feature = slot.feature

    def cell(request: ModelInferRequest, tensor: Any) -> float | str | None:
        rows, width = check(tensor, slot)
        cells = inputs_of(request)[feature.tensor].reshape(rows, width)[:, slot.column]
        if not feature.levels:
            with np.errstate(
                invalid="ignore", over="ignore"
            ):  # infinite means, which are refused when they are finished
                return float(cells.mean(dtype=np.float64))
        first = cells[0]
        try:
            return plain(first.decode() if isinstance(first, bytes) else first.item(), slot.name, feature)
        except UnicodeDecodeError:
            raise refusal(slot.name, feature, "must be UTF-8") from None

    def read(request: ModelInferRequest, tensor: Any, _buffer: bytes | None, values: list[Value]) -> None:
        values[slot.place] = slot.finish(None if tensor is None else cell(request, tensor))

    return read


def check(tensor: Any, slot: Slot) -> tuple[int, int]:
    """The rows and columns of a tensor that a feature is read from. Raises InvalidArgument where it cannot be."""
    name, feature, shape = slot.name, slot.feature, tensor.shape[:]
    if not shape:
        raise refusal(name, feature, f"cannot be read: the shape has 0 dimensions; {_SHAPES}")
    rows, width = _laid_out(shape)
    if tensor.datatype not in _takes(feature):
        takes = ", ".join(_takes(feature))
        raise refusal(name, feature, f"cannot be read: the input is {tensor.datatype[:20]!r}; right are {takes}")
    if width <= slot.column:
        raise refusal(name, feature, f"is not there: the input has {width} column(s), counted from 0")
    if rows < 1:
        raise refusal(name, feature, "is not there: the input has no rows")
    if rows > 1 and feature.rows == "one":
        raise refusal(name, feature, f'is not one value: the input has {rows} rows, and rows is not "first" or "mean"')
    return rows, width


def _laid_out(shape: Sequence[int]) -> tuple[int, int]:
    """Rows, and the columns of each: all that is in a row, in the order in which it is sent."""
    if not shape or min(shape) < 0:
        return 0, 0
    return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, shape[0])


def _takes(feature: Feature) -> Collection[str]:
    return _WORDS if feature.levels else _NUMBERS
