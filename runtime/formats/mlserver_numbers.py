"""The numbers of a tensor as MLServer's types hold them: in Python's lists, flat or nested, or in an array."""

from __future__ import annotations

from array import array
from math import nan
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.tensors import DATATYPES

# By the kind of a datatype: Python's own array, which takes integers exactly and no text; NumPy's that can be compared
# with what is made of them; and the types that JSON has for its values.
_WIDEST = {"b": "b", "i": "q", "u": "Q", "f": "d"}
_COMPARED = {"b": "biu", "i": "biu", "u": "biu", "f": "biuf"}
_IN_JSON: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float, NoneType}}


def numbers_of(data: Any, datatype: str, *, strict: bool = False) -> NDArray[Any]:
    """Numbers as an array of a datatype, flat: integers and truths exactly, floats rounded. Among floats, null is NaN.

    1.0 and true count as 1, unless it is strict, as our JSON is. Raises ValueError for text, for lists of different
    lengths beside each other, and for what the datatype cannot hold.
    """
    dtype = DATATYPES[datatype]
    try:
        if isinstance(data, np.ndarray) and data.dtype.kind in _COMPARED[dtype.kind]:
            given = data.ravel()
        else:
            given = _listed(_flat(data), dtype.kind, strict=strict)
        with np.errstate(over="ignore"):
            numbers = given.astype(dtype)
        lost = np.isinf(numbers) & ~np.isinf(given) if dtype.kind == "f" else numbers != given
        if lost.any():
            raise OverflowError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"its data are not the values of one {datatype} tensor, which are {_values(dtype)}") from None
    return numbers


def _flat(data: Any) -> list[Any]:
    if isinstance(data, list) and not (data and hasattr(data[0], "__len__")):
        return data
    flat: list[Any] = np.array(data, np.object_).ravel().tolist()
    return flat


def _listed(flat: list[Any], kind: str, *, strict: bool) -> NDArray[Any]:
    """An array that holds what a list does, as it is: of a wide type, or of objects."""
    if strict and not set(map(type, flat)) <= _IN_JSON[kind]:
        raise TypeError
    try:
        return np.array(array(_WIDEST[kind], flat))
    except TypeError:
        if kind != "f":
            return np.array(flat, np.object_)
        return np.array(array("d", [nan if each is None else each for each in flat]))


def _values(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "b":
        return "true and false"
    if dtype.kind == "f":
        return f"the numbers from {float(np.finfo(dtype).min)} to {float(np.finfo(dtype).max)}"
    return f"the integers from {np.iinfo(dtype).min} to {np.iinfo(dtype).max}"
