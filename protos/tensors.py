"""V2 tensors to and from NumPy arrays: every datatype, as raw buffers and as typed contents.

Both forms are read without looking at single elements, BYTES apart, and checked against name, datatype and shape.
Arrays made from a request are read-only views of its bytes where the form allows it.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from itertools import repeat
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from protos.errors import InvalidArgument
from protos.infer_request import InferRequest
from protos.messages import InferTensorContents, ModelInferRequest, ModelInferResponse, varint

_Tensor = ModelInferRequest.InferInputTensor | ModelInferResponse.InferOutputTensor

DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(np.object_),
}
FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
DIMENSIONS = 64  # that an array can have in NumPy
ONE_TEXT = "; for one text, however long, write shape [1]"  # MLServer's documentation counts its letters
BASE64 = "base64"  # the content_type of BYTES that travel as text

_NAMES = {dtype: name for name, dtype in DATATYPES.items()}

# Which field of InferTensorContents holds a datatype. There is none for FP16 and BF16.
_FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# These are fixed-size on the wire, so that a serialized field is a tag, a length and the array itself. Forty times
# faster than element by element, and exact to the bit: NaN payloads do not survive a detour through Python floats.
_TAGS = {"BOOL": 1 << 3 | 2, "FP32": 6 << 3 | 2, "FP64": 7 << 3 | 2}

_NARROWEST = 4  # bytes; the typed fields have no narrower integers, so smaller ones must be checked
_LENGTH = struct.Struct("<I")  # before each element of a raw BYTES tensor


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The V2 datatype of a NumPy dtype, in any byte order; raises TypeError when V2 has none."""
    name = _NAMES.get(dtype)
    if name is None:
        name = "BYTES" if dtype.kind in "SU" else _NAMES.get(dtype.newbyteorder("<"))
    if name is None:
        raise TypeError(f"V2 has no datatype for NumPy's {dtype}; it has {', '.join(DATATYPES)}")
    return name


def dtype_of(datatype: str, shape: Sequence[int]) -> np.dtype[Any]:
    """The NumPy dtype of a V2 datatype; raises InvalidArgument for an unknown one, or a shape that no array has."""
    if datatype not in DATATYPES:
        raise InvalidArgument(f"unknown datatype {datatype!r}; V2 has {', '.join(DATATYPES)}")
    if len(shape) > DIMENSIONS:
        raise InvalidArgument(f"its shape has {len(shape)} dimensions; {DIMENSIONS} are the most an array can have")
    if shape and min(shape) < 0:
        raise InvalidArgument(f"shape {shape} has a negative dimension")
    return DATATYPES[datatype]


def shaped(array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """An array of as many elements, in that shape; raises InvalidArgument where NumPy cannot have it."""
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise InvalidArgument(f"shape {shape} is too large for an array: {error}") from None


def inputs_of(request: InferRequest) -> dict[str, NDArray[Any]]:
    """The inputs of a request by name; BYTES are object arrays of bytes. Raises InvalidArgument naming the tensor.

    BYTES whose parameters say content_type "base64", as MLServer's clients write it, are what that spells.
    """
    return _arrays("input", request.inputs, request.raw_input_contents)


def outputs_of(response: ModelInferResponse) -> dict[str, NDArray[Any]]:
    """The outputs of a response by name, as `inputs_of` reads a request."""
    return _arrays("output", response.outputs, response.raw_output_contents)


def buffer_of(array: NDArray[Any]) -> bytes | memoryview:
    """What an array is as a raw buffer, uncopied where it lies in memory as on the wire. Raises TypeError."""
    datatype = datatype_of(array.dtype)
    if datatype == "BYTES":
        return _joined(array)
    return _little(array, datatype).reshape(-1).view(np.uint8).data


def add_inputs(request: ModelInferRequest, arrays: Mapping[str, NDArray[Any]], *, raw: bool) -> None:
    """Appends arrays to a request as raw buffers or typed contents; a request must hold one form only.

    BYTES come from object arrays of bytes or str, from `S` and from `U` arrays; text becomes UTF-8. Raises TypeError
    for what V2 cannot say, and InvalidArgument for FP16 and BF16 as typed contents.
    """
    _add("input", request.inputs, request.raw_input_contents, arrays, raw=raw)


def add_outputs(response: ModelInferResponse, arrays: Mapping[str, NDArray[Any]], *, raw: bool) -> None:
    """Appends arrays to a response, as `add_inputs` does to a request."""
    _add("output", response.outputs, response.raw_output_contents, arrays, raw=raw)


def _arrays(kind: str, tensors: Sequence[_Tensor], buffers: Sequence[bytes | memoryview]) -> dict[str, NDArray[Any]]:
    if buffers and len(buffers) != len(tensors):
        raise InvalidArgument(f"there are {len(tensors)} {kind}s and {len(buffers)} raw buffers; each needs one")
    arrays: dict[str, NDArray[Any]] = {}
    # Slices are lists: protobuf's containers end their own iteration with a costly IndexError.
    for tensor, buffer in zip(tensors[:], buffers[:] or repeat(None), strict=False):
        name = tensor.name
        if name in arrays:
            raise InvalidArgument(f"{kind} {name!r} is given twice")
        try:
            array = arrays[name] = _array(tensor, buffer)
            if array.dtype.hasobject and kind == "input" and tensor.parameters:
                arrays[name] = _decoded(array, tensor)
        except InvalidArgument as error:
            raise InvalidArgument(f"{kind} {name!r}: {error}") from None
    return arrays


def _array(tensor: _Tensor, buffer: bytes | memoryview | None) -> NDArray[Any]:
    datatype, shape = tensor.datatype, tensor.shape[:]
    dtype = dtype_of(datatype, shape)
    if buffer is None:
        return _typed(tensor.contents, datatype, dtype, shape)
    if tensor.HasField("contents") and tensor.contents.ListFields():
        raise InvalidArgument("it has both a raw buffer and typed contents; send one form for the whole message")
    return _raw(buffer, datatype, dtype, shape)


def _decoded(array: NDArray[Any], tensor: _Tensor) -> NDArray[Any]:
    """BYTES as they are meant: those in base64 are what it spells, all others themselves."""
    if "content_type" not in tensor.parameters or tensor.parameters["content_type"].string_param != BASE64:
        return array
    plain = []
    for i, element in enumerate(array.ravel()):
        try:
            plain.append(base64.b64decode(element, validate=True))
        except binascii.Error as error:
            raise InvalidArgument(f"its content_type is {BASE64!r}, and element [{i}] is not: {error}") from None
    return np.array(plain, np.object_).reshape(array.shape)


def _raw(buffer: bytes | memoryview, datatype: str, dtype: np.dtype[Any], shape: list[int]) -> NDArray[Any]:
    if datatype == "BYTES":
        return shaped(_split(buffer, prod(shape)), shape)
    size = prod(shape) * dtype.itemsize
    if len(buffer) != size:
        raise InvalidArgument(f"{datatype} of shape {shape} takes {size} bytes, its raw buffer has {len(buffer)}")
    if not size:  # which a shape too large for an array may take, too
        return shaped(np.empty(0, dtype), shape)
    array: NDArray[Any] = np.ndarray(shape, dtype, buffer)
    if datatype == "BOOL" and (array.view(np.uint8) > 1).any():
        raise InvalidArgument("a raw BOOL is one byte, 0 or 1; its buffer has others")
    return array


def _split(buffer: bytes | memoryview, count: int) -> NDArray[np.object_]:
    """Takes apart a raw BYTES buffer: before each element its length, four bytes little-endian."""
    elements = []
    start, end = 0, len(buffer)
    for i in range(count):
        if start + _LENGTH.size > end:
            raise InvalidArgument(f"its raw buffer ends before the length of element [{i}]; its shape takes {count}")
        (length,) = _LENGTH.unpack_from(buffer, start)
        start += _LENGTH.size
        if start + length > end:
            raise InvalidArgument(f"element [{i}] should have {length} bytes; its raw buffer has {end - start} left")
        elements.append(bytes(buffer[start : start + length]))
        start += length
    if start < end:
        raise InvalidArgument(f"its raw buffer has {end - start} bytes after the {count} elements that its shape takes")
    return np.array(elements, np.object_)


def _typed(contents: InferTensorContents, datatype: str, dtype: np.dtype[Any], shape: list[int]) -> NDArray[Any]:
    field = _FIELDS.get(datatype)
    if field is None:
        raise InvalidArgument(f"{datatype} cannot travel as typed contents; send the message with raw buffers")
    others = [descriptor.name for descriptor, _ in contents.ListFields() if descriptor.name != field]
    if others:
        raise InvalidArgument(f"the typed contents of {datatype} belong in {field}; it has {' and '.join(others)}")
    values, count = getattr(contents, field), prod(shape)
    if len(values) != count:
        hint = ONE_TEXT if datatype == "BYTES" and len(values) == 1 else ""
        raise InvalidArgument(f"shape {shape} takes {count} elements, its {field} has {len(values)}{hint}")
    if count and datatype in _TAGS:
        header = 1 + len(varint(count * dtype.itemsize))
        return np.ndarray(shape, dtype, contents.SerializeToString(), header)
    if dtype.itemsize >= _NARROWEST:
        return shaped(np.array(values[:], dtype), shape)
    wide = np.array(values[:], np.int64)
    narrow = wide.astype(dtype)
    outside = narrow != wide
    if outside.any():
        at, limits = int(outside.argmax()), np.iinfo(dtype)
        raise InvalidArgument(f"element [{at}] is {wide[at]}; {datatype} goes from {limits.min} to {limits.max}")
    return shaped(narrow, shape)


def _add(kind: str, tensors: Any, buffers: Any, arrays: Mapping[str, NDArray[Any]], *, raw: bool) -> None:
    for name, array in arrays.items():
        try:
            datatype = datatype_of(array.dtype)
            tensor = tensors.add(name=name, datatype=datatype, shape=array.shape)
            if raw:
                buffers.append(_joined(array) if datatype == "BYTES" else _little(array, datatype).tobytes())
            else:
                _fill(tensor.contents, datatype, array)
        except InvalidArgument as error:
            raise InvalidArgument(f"{kind} {name!r}: {error}") from None
        except TypeError as error:
            raise TypeError(f"{kind} {name!r}: {error}") from None


def _fill(contents: InferTensorContents, datatype: str, array: NDArray[Any]) -> None:
    field = _FIELDS.get(datatype)
    if field is None:
        raise InvalidArgument(f"{datatype} cannot travel as typed contents; ask with raw buffers")
    if datatype in _TAGS:
        body = _little(array, datatype).tobytes()
        contents.MergeFromString(bytes([_TAGS[datatype]]) + varint(len(body)) + body)
        return
    elements = _elements(array) if datatype == "BYTES" else array.ravel().tolist()
    getattr(contents, field).extend(elements)


def _little(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    return array.astype(DATATYPES[datatype], copy=False)


def _joined(array: NDArray[Any]) -> bytes:
    parts = []
    for element in _elements(array):
        parts += [_LENGTH.pack(len(element)), element]
    return b"".join(parts)


def _elements(array: NDArray[Any]) -> list[bytes]:
    elements = array.ravel().tolist()
    for i, element in enumerate(elements):
        if isinstance(element, str):
            elements[i] = element.encode()
        elif not isinstance(element, bytes):
            raise TypeError(f"element {i} of a BYTES tensor is {type(element).__name__}; it must be bytes or str")
    return elements
