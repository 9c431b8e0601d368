"""The numbers and texts of a tensor in JSON, flat or nested, strict, and without a loop over numbers.

JSON has neither NaN nor infinity: in answers they become null, and null is read as NaN in FP16, BF16, FP32 and FP64.
"""

from __future__ import annotations

import base64
import re
from functools import cache
from math import prod
from types import GenericAlias
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Raw
from numpy.typing import NDArray

from protos.errors import FailedPrecondition, InvalidArgument
from protos.tensors import BASE64, DATATYPES, DIMENSIONS, FLOATS, ONE_TEXT, dtype_of, shaped

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# What stands for one element. Bounds end at int64, so an UINT64 too large is left to NumPy to refuse.
_ELEMENTS: dict[str, Any] = {
    "BOOL": bool,
    "UINT64": Annotated[int, Meta(ge=0)],
    "BYTES": str,
    **dict.fromkeys(FLOATS, float | None),
} | {
    name: Annotated[int, Meta(ge=int(np.iinfo(dtype).min), le=int(np.iinfo(dtype).max))]
    for name, dtype in DATATYPES.items()
    if dtype.kind in "iu" and name != "UINT64"
}
_NO_NULL = (
    "; BYTES have no null: send a text that stands for it, or, to a model on pandas, each element as JSON with "
    'content_type "pd_json"'
)
_RAGGED = "data is ragged; lists beside each other must have the same length"
_OPENING = re.compile(rb"[\[\s]*")


def array_of(data: Raw, datatype: str, shape: list[int]) -> NDArray[Any]:
    """The array that JSON data spells; BYTES are its strings in UTF-8. Raises InvalidArgument."""
    dtype = dtype_of(datatype, shape)
    array, count = _parsed(data, datatype, dtype), prod(shape)
    if array.ndim == 1:
        if array.size != count:
            hint = ONE_TEXT if datatype == "BYTES" and array.size == 1 else ""
            raise InvalidArgument(f"shape {shape} takes {count} elements, data has {array.size}{hint}")
    # An empty list inside hides the dimensions behind it.
    elif array.size != count or list(array.shape) != (shape if count else shape[: array.ndim]):
        raise InvalidArgument(f"data is nested as {list(array.shape)}, its shape is {shape}")
    return shaped(array, shape)


def _parsed(data: Raw, datatype: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array that flat or nested lists spell, in the shape that they are nested."""
    depth = _depth(data)
    try:
        nested = _decoder(datatype, depth).decode(data)
    except UNREADABLE as error:
        says = str(error).replace("`$", "`data")
        raise InvalidArgument(says + _NO_NULL if "`str`, got `null`" in says else says) from None
    floating = datatype in FLOATS
    try:
        array = np.array(nested, np.float64 if floating else dtype)
    except OverflowError:
        raise InvalidArgument(f"data holds integers beyond {datatype}") from None
    except ValueError:
        raise InvalidArgument(_RAGGED) from None
    if array.ndim != depth:  # strings are objects to NumPy, and so are lists of them
        raise InvalidArgument(_RAGGED)
    return _narrowed(array, datatype, dtype) if floating else array


def _depth(data: Raw) -> int:
    """How deep the lists are nested, told by the brackets that data starts with; at least one, data being a list."""
    opening = _OPENING.match(data)
    depth = max(1, opening.group().count(b"[") if opening else 0)
    if depth > DIMENSIONS:
        raise InvalidArgument(f"data is nested {depth} deep; {DIMENSIONS} are the most an array can have")
    return depth


@cache
def _decoder(datatype: str, depth: int) -> msgspec.json.Decoder[Any]:
    kind = _ELEMENTS[datatype]
    for _ in range(depth):
        kind = GenericAlias(list, (kind,))
    return msgspec.json.Decoder(kind)


def _narrowed(array: NDArray[np.float64], datatype: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype)
    beyond = np.isinf(narrow)
    if beyond.any():
        raise InvalidArgument(f"data holds {array[beyond][0]}, which is beyond {datatype}")
    return narrow


def data_of(name: str, array: NDArray[Any], *, in_base64: bool) -> list[Any]:
    """An array for JSON, flat. Raises FailedPrecondition for BYTES that JSON cannot say, naming the output."""
    flat = array.ravel()
    if flat.dtype.hasobject:
        try:
            return [(base64.b64encode(element) if in_base64 else element).decode() for element in flat]
        except UnicodeDecodeError:
            raise FailedPrecondition(
                f"output {name!r} is not UTF-8, which JSON needs; ask for it with content_type {BASE64!r} or "
                "binary_data among its parameters"
            ) from None
    # BF16 has no list of Python's floats to give.
    return (flat.astype(np.float32) if flat.dtype.kind == "V" else flat).tolist()
