"""How large an ONNX file's weights are: its tensors' shapes, read without the tensors, wherever these are.

ONNX Runtime does not tell, and the package that would parse the file would read all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path

# Fields of ONNX's messages, by number: ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto.
_GRAPH = 7
_NODE, _INITIALIZER = 1, 5
_ATTRIBUTE = 5
_VALUE = 5
_DIMS, _TYPE = 1, 2

# Bytes of an element by TensorProto.DataType; of strings and of what is younger than this none is known.
_SIZES: dict[int, float] = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 16: 2}
_SIZES |= {15: 16} | dict.fromkeys(range(17, 21), 1) | dict.fromkeys(range(21, 24), 0.5)

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_Span = tuple[int, int]


def weights_of(path: Path) -> int:
    """Bytes of a file's weights: its initial tensors and its constants. Of a file that ONNX Runtime takes."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        return sum(_size(data, tensor) for tensor in _tensors(data))


def _tensors(data: mmap) -> Iterator[_Span]:
    for graph in _inner(data, (0, len(data)), _GRAPH):
        yield from _inner(data, graph, _INITIALIZER)
        for node in _inner(data, graph, _NODE):
            for attribute in _inner(data, node, _ATTRIBUTE):
                yield from _inner(data, attribute, _VALUE)


def _size(data: mmap, tensor: _Span) -> int:
    dims: list[int] = []
    kind = 0
    for number, value in _fields(data, tensor):
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else _packed(data, value)
        elif number == _TYPE and isinstance(value, int):
            kind = value
    return int(prod(dims) * _SIZES.get(kind, 0))


def _inner(data: mmap, span: _Span, number: int) -> Iterator[_Span]:
    return (value for each, value in _fields(data, span) if each == number and not isinstance(value, int))


def _fields(data: mmap, span: _Span) -> Iterator[tuple[int, int | _Span]]:
    """A message's fields: a number's value, and where anything longer lies."""
    at, end = span
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if length is None:
            length, at = _varint(data, at)
        yield number, (at, at + length)
        at += length


def _packed(data: mmap, span: _Span) -> list[int]:
    values, (at, end) = [], span
    while at < end:
        value, at = _varint(data, at)
        values.append(value)
    return values


def _varint(data: mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004
            return value, at
