"""Tensors as bytes behind the JSON of an HTTP body: Triton's extension for binary tensors.

The header says how many bytes of the body are JSON. What follows are the raw buffers of those tensors that have
`binary_data_size` among their parameters, in the order of the JSON. A length of 0 says that there is no JSON at all:
the body is the one input of the model.
"""

from __future__ import annotations

from math import prod

import numpy as np

from protos.errors import InvalidArgument
from protos.messages import ModelInferRequest, ModelMetadataResponse
from protos.tensors import DATATYPES, buffer_of

HEADER = b"inference-header-content-length"
SIZE = "binary_data_size"

_DIGITS = 19


def json_size(value: bytes, body: bytes) -> int:
    """How many bytes of a body are JSON, as the header says. Raises InvalidArgument."""
    text = value.decode("latin-1")
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text) <= len(body)):
        raise InvalidArgument(f"Inference-Header-Content-Length is {text[:20]!r}; the body has {len(body)} bytes")
    return int(text)


class Tail:
    """Hands out the buffers behind the JSON of a body, one after the other, without copying them."""

    __slots__ = ("_announced", "_at", "_view")

    def __init__(self, body: bytes, json_size: int | None) -> None:
        self._view = memoryview(body)
        self._announced = json_size is not None
        self._at = len(body) if json_size is None else json_size

    def take(self, size: object) -> memoryview:
        """The next `size` bytes. Raises InvalidArgument."""
        if not self._announced:
            raise InvalidArgument(f"it has {SIZE}, and no Inference-Header-Content-Length says where the JSON ends")
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise InvalidArgument(f"{SIZE} is {size!r}; it is a number of bytes")
        left = len(self._view) - self._at
        if size > left:
            raise InvalidArgument(f"{SIZE} is {size}; the body has {left} bytes left for it")
        self._at += size
        return self._view[self._at - size : self._at]

    def end(self) -> None:
        """Raises InvalidArgument when something is left."""
        if left := len(self._view) - self._at:
            raise InvalidArgument(f"{left} bytes of the body belong to no input; each says its {SIZE}")


def only_input(body: bytes, model: ModelMetadataResponse) -> ModelInferRequest:
    """The request that a body without JSON makes of a model with one input. Raises InvalidArgument."""
    if len(model.inputs) != 1:
        names = ", ".join(repr(each.name) for each in model.inputs)
        raise InvalidArgument(f"a body without JSON is one input; the model declares {names or 'none'}")
    (declared,) = model.inputs
    shape = _told_by(len(body), declared.datatype, [*declared.shape])
    if shape is None:
        raise InvalidArgument(
            f"input {declared.name!r} is declared {declared.datatype} {[*declared.shape]}; "
            f"{len(body)} bytes without JSON do not tell its shape"
        )
    request = ModelInferRequest()
    request.inputs.add(name=declared.name, datatype=declared.datatype, shape=shape)
    # A lone element comes without the length that stands before each of many.
    alone = bytes(buffer_of(np.array([body], np.object_))) if declared.datatype == "BYTES" else body
    request.raw_input_contents.append(alone)
    return request


def _told_by(length: int, datatype: str, shape: list[int]) -> list[int] | None:
    """The shape of a tensor of `length` bytes, or of one element of BYTES; None when the length does not tell it."""
    fixed = prod(size for size in shape if size >= 0)
    if datatype == "BYTES":
        return [abs(size) for size in shape] if fixed == 1 else None
    size, free = fixed * DATATYPES[datatype].itemsize, shape.count(-1)
    if free == 1 and size and not length % size:
        return [length // size if each < 0 else each for each in shape]
    return shape if not free and length == size else None
