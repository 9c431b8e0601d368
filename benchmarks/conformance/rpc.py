"""The table, part two: inference over gRPC."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.conformance.known import (
    ANSWERED,
    BFLOAT,
    BROKEN,
    BYTES,
    COERCED,
    CRASHED,
    FRACTION,
    HANGS,
    IGNORED,
    LETTERS,
    LONG,
    MISFIT,
    MIXED,
    NAN,
    PADDED,
    TWICE,
    UNDECLARED,
)
from benchmarks.conformance.language import Grpc, Together, ask, case, send, tensors
from protos.messages import ModelInferRequest
from protos.tensors import DATATYPES as DTYPES

_PAIR = np.array([[1.5, -2.25]], np.float32)
_SPECIAL = np.array([[np.nan, np.inf], [-np.inf, -0.0]], np.float32)
_A, _B = np.array([[1, 2, 3]], np.float32), np.array([[10, 20, 30]], np.float32)
_RAW = _PAIR.tobytes()
_X = {"name": "x", "datatype": "FP32", "shape": [1, 2]}


def _edges(datatype: str) -> Any:
    dtype = DTYPES[datatype]
    if dtype.kind == "b":
        return np.array([[True, False]])
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return np.array([[limits.min, limits.max]], dtype)


_NUMBERS = [name for name in DTYPES if name not in {"BF16", "BYTES"}]
_TEXTS = np.array([["one"], ["zwölf \U0001f600"]], np.object_)


def _with(request: ModelInferRequest, **fields: Any) -> ModelInferRequest:
    request.MergeFrom(ModelInferRequest(**fields))
    return request


def _typed(datatype: str, shape: list[int], **contents: Any) -> Grpc:
    tensor = {"name": "x", "datatype": datatype, "shape": shape, "contents": contents}
    return tensors(datatype.lower(), tensor)


DATATYPES = [
    *[case(f"{name} raw", send(ask(name.lower(), raw=True, x=_edges(name)))) for name in _NUMBERS],
    *[case(f"{name} typed", send(ask(name.lower(), x=_edges(name)))) for name in _NUMBERS if name != "FP16"],
    *[case(f"{name} raw, no row", send(ask(name.lower(), raw=True, x=_edges(name)[:0]))) for name in _NUMBERS],
    case("FP16 typed, as bytes", _typed("FP16", [1, 2], bytes_contents=[b"\0\x3c", b"\0\x40"]), CRASHED),
    case("BF16 raw", tensors("bf16", {**_X, "datatype": "BF16"}, raw=[b"\x80\x3f\0\x40"]), BFLOAT),
    case("BYTES raw", send(ask("bytes", raw=True, x=_TEXTS))),
    case("BYTES typed", send(ask("bytes", x=_TEXTS))),
    case("BYTES that are no text", send(ask("bytes", raw=True, x=np.array([[b"\xff\0"]], np.object_))), BYTES),
    case(
        "BYTES, the last cut short",
        tensors("bytes", {"name": "x", "datatype": "BYTES", "shape": [1, 1]}, raw=[b"\5\0\0\0abc"]),
        CRASHED,
    ),
    case(
        "BYTES, one too many",
        tensors("bytes", {"name": "x", "datatype": "BYTES", "shape": [1, 1]}, raw=[b"\1\0\0\0a\1\0\0\0b"]),
        MISFIT,
    ),
    case(
        "BYTES, one too few",
        tensors("bytes", {"name": "x", "datatype": "BYTES", "shape": [2, 1]}, raw=[b"\1\0\0\0a"]),
        MISFIT,
    ),
    case("NaN and infinities, raw", send(ask("fp32", raw=True, x=_SPECIAL)), NAN),
    case("NaN and infinities, typed", send(ask("fp32", x=_SPECIAL)), NAN),
    case("infinities, raw", send(ask("fp32", raw=True, x=_SPECIAL[1:]))),
    case("infinities, typed", send(ask("fp32", x=_SPECIAL[1:]))),
    case("INT8 typed, over its edge", _typed("INT8", [1, 1], int_contents=[200]), CRASHED),
    case("UINT16 typed, over its edge", _typed("UINT16", [1, 1], uint_contents=[70000]), CRASHED),
    case("typed in another field", _typed("FP32", [1, 1], fp64_contents=[1.0]), COERCED),
    case("typed in two fields", _typed("FP32", [1, 1], fp32_contents=[1.0], int_contents=[1]), TWICE),
    case("an unknown datatype, raw", tensors("fp32", {**_X, "datatype": "FLOAT"}, raw=[_RAW]), CRASHED),
    case(
        "an unknown datatype, typed",
        tensors("fp32", {**_X, "datatype": "FLOAT", "contents": {"fp32_contents": [1, 2]}}),
        CRASHED,
    ),
    case("no datatype", tensors("fp32", {"name": "x", "shape": [1, 2]}, raw=[_RAW]), CRASHED),
    case("another datatype than declared", send(ask("fp32", raw=True, x=np.array([[1, 2]], np.int64))), UNDECLARED),
]

SHAPES = [
    case("three dimensions", send(ask("cube", raw=True, x=np.arange(8, dtype=np.float32).reshape(2, 2, 2)))),
    case("one dimension, as declared", send(ask("vector", raw=True, x=np.arange(3, dtype=np.float32))), PADDED),
    case("a buffer too short", tensors("fp32", _X, raw=[_RAW[:-4]]), CRASHED),
    case("a buffer too long", tensors("fp32", _X, raw=[_RAW + b"\0\0\0\0"]), CRASHED),
    case("a buffer of an odd length", tensors("fp32", _X, raw=[_RAW[:-1]]), CRASHED),
    case("too few typed values", tensors("fp32", {**_X, "contents": {"fp32_contents": [1]}}), CRASHED),
    case("too many typed values", tensors("fp32", {**_X, "contents": {"fp32_contents": [1, 2, 3]}}), CRASHED),
    case("neither raw nor typed", tensors("fp32", _X), CRASHED),
    case("raw and typed", tensors("fp32", {**_X, "contents": {"fp32_contents": [1, 2]}}, raw=[_RAW]), TWICE),
    case("a buffer too many", tensors("fp32", _X, raw=[_RAW, _RAW]), MISFIT),
    case(
        "a buffer too few",
        tensors("sum", {**_X, "name": "a", "shape": [1, 2]}, {**_X, "name": "b"}, raw=[_RAW]),
        CRASHED,
    ),
    case("a negative dimension, raw", tensors("fp32", {**_X, "shape": [-1, 2]}, raw=[_RAW]), CRASHED),
    case(
        "a negative dimension, typed",
        tensors("fp32", {**_X, "shape": [-1, 2], "contents": {"fp32_contents": [1, 2]}}),
        MISFIT,
    ),
    case("a dimension too large", tensors("fp32", {**_X, "shape": [2**62, 2**62]}, raw=[_RAW]), CRASHED),
    case("no shape", tensors("fp32", {"name": "x", "datatype": "FP32"}, raw=[_RAW[:4]]), UNDECLARED),
    case("one dimension, where two are declared", tensors("fp32", {**_X, "shape": [2]}, raw=[_RAW]), UNDECLARED),
    case("another size than declared", send(ask("cube", raw=True, x=np.zeros((1, 2, 3), np.float32))), UNDECLARED),
    case("5 MiB", send(ask("fp32", raw=True, x=np.zeros((5, 1 << 18), np.float32))), LONG),
    case("no inputs", tensors("fp32"), CRASHED),
]

NAMES = [
    case("two inputs, all outputs", send(ask("sum", raw=True, a=_A, b=_B))),
    case("one output asked for", send(_with(ask("sum", raw=True, a=_A, b=_B), outputs=[{"name": "difference"}]))),
    case(
        "both outputs, turned round",
        send(_with(ask("sum", raw=True, a=_A, b=_B), outputs=[{"name": "difference"}, {"name": "sum"}])),
    ),
    case(
        "an output asked for twice",
        send(_with(ask("sum", raw=True, a=_A, b=_B), outputs=[{"name": "sum"}, {"name": "sum"}])),
        TWICE,
    ),
    case("an unknown output", send(_with(ask("sum", raw=True, a=_A, b=_B), outputs=[{"name": "product"}]))),
    case("an input is missing", send(ask("sum", raw=True, a=_A)), CRASHED),
    case("an input twice", tensors("fp32", _X, _X, raw=[_RAW, _RAW]), TWICE),
    case("an input of another name", send(ask("fp32", raw=True, z=_PAIR)), CRASHED),
    case("an unknown model", send(ask("nobody", raw=True, x=_PAIR))),
    case("no model", send(ask("", raw=True, x=_PAIR))),
    case("an unknown version", send(ask("versions", raw=True, version="7", x=_PAIR[:, :1]))),
    case("a version", send(ask("versions", raw=True, version="2", x=_PAIR[:, :1]))),
    case("the newest version", send(ask("versions", raw=True, x=_PAIR[:, :1]))),
    case("a model that is not loaded", send(ask("late", raw=True, x=_PAIR[:, :1]))),
    case("a model that fails", send(ask("choosy", raw=True, x=np.array([[2]], np.float32)))),
]

PARAMETERS = [
    case("an id", send(_with(ask("fp32", raw=True, x=_PAIR), id="seven"))),
    case("no id", send(ask("fp32", raw=True, x=_PAIR))),
    case(
        "parameters",
        send(
            _with(
                ask("fp32", raw=True, x=_PAIR),
                parameters={
                    "a": {"int64_param": 1},
                    "b": {"string_param": "two"},
                    "c": {"bool_param": True},
                    "d": {"double_param": 0.5},
                    "e": {"uint64_param": 2**64 - 1},
                    "f": {},
                },
            )
        ),
    ),
    case(
        "parameters reach a hosted model",
        send(
            _with(
                ask("tells", raw=True, x=_PAIR),
                parameters={"a": {"int64_param": 1}, "b": {"bool_param": False}, "c": {"string_param": ""}},
            )
        ),
    ),
    case(
        "a fraction reaches a hosted model",
        send(_with(ask("tells", raw=True, x=_PAIR), parameters={"d": {"double_param": 0.5}})),
        FRACTION,
    ),
    case("a hosted model refuses", send(ask("tells", raw=True, wrong=_PAIR))),
    case("a hosted model lacks a parameter", send(ask("tells", raw=True, worse=_PAIR)), BROKEN),
    case("a hosted model fails", send(ask("tells", raw=True, worst=_PAIR))),
    case("a hosted model doubles, raw", send(ask("doubles", raw=True, x=np.array([[1.0, 2.0]])))),
    case("a hosted model doubles, typed", send(ask("doubles", x=np.array([[1.0, 2.0]])))),
    case("a hosted model doubles NaN", send(ask("doubles", raw=True, x=np.array([[np.nan, 2.0]]))), NAN),
    case("a header reaches a hosted model", send(ask("tells", raw=True, x=_PAIR), x_told="7")),
    case("a hosted model answers with a header", send(ask("special", raw=True, x=np.array([[1.0, 2.0]])))),
    case(
        "a hosted model answers each of two twice",
        send(*(ask("special", raw=True, x=np.array([[value, 2.0]])) for value in (1.0, 3.0)), stream=True),
    ),
    case("TorchScript, raw", send(ask("net", raw=True, x=np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)))),
    case("TorchScript, typed", send(ask("net", x=np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)))),
    case("TorchScript, NaN", send(ask("net", raw=True, x=np.array([[np.nan, 0.2, 0.3, 0.4]], np.float32)))),
    case("TorchScript, another width", send(ask("net", raw=True, x=np.zeros((1, 5), np.float32)))),
    case(
        "classification asked for",
        send(
            _with(
                ask("sum", raw=True, a=_A, b=_B),
                outputs=[{"name": "sum", "parameters": {"classification": {"int64_param": 2}}}],
            )
        ),
        IGNORED,
    ),
    case("metadata of our own", send(ask("fp32", raw=True, x=_PAIR), x_request_id="17", seldon_model="m")),
    case("gzip", send(ask("fp32", raw=True, x=_PAIR), compressed=True)),
    case("no message", Grpc("ModelInfer", [b"\xff\xff"]), CRASHED),
    case("an empty message", Grpc("ModelInfer", [b""])),
    case("an unknown method", Grpc("ModelGuess", [b""])),
    case("an unknown service", Grpc("/inference.Oracle/ModelInfer", [b""])),
    case("a stream of one", send(ask("fp32", raw=True, x=_PAIR), stream=True)),
    case(
        "a stream of two",
        send(ask("fp32", raw=True, x=_PAIR), ask("fp32", raw=True, x=2 * _PAIR), stream=True),
        ANSWERED,
    ),
    case("a model counts the letters of a text", send(ask("tells", letters=[[1]])), LETTERS),
    case("a model's parameter is a list", send(ask("tells", list=[[1]]))),
    case("a stream for an unknown model", send(ask("nobody", raw=True, x=_PAIR), stream=True)),
]


def _row(value: float, **fields: Any) -> Grpc:
    return send(_with(ask("batched", raw=True, x=np.full((1, 2), value, np.float32)), **fields))


BATCHES = [
    case("three rows", Together([_row(1), _row(2), _row(3)])),
    case(
        "three calls of one, two and no rows",
        Together(
            [
                _row(1),
                send(ask("batched", raw=True, x=np.full((2, 2), 2, np.float32))),
                send(ask("batched", raw=True, x=np.zeros((0, 2), np.float32))),
            ]
        ),
    ),
    case("each its id", Together([_row(i, id=str(i)) for i in range(3)])),
    case(
        "of other widths",
        Together([_row(1), send(ask("batched", raw=True, x=np.full((1, 3), 2, np.float32))), _row(3)]),
        MIXED,
    ),
    case(
        "one of another datatype",
        Together([_row(1), send(ask("batched", raw=True, x=np.full((1, 2), 2, np.int64))), _row(3)]),
        UNDECLARED,
    ),
    case("one asks for an output", Together([_row(1, outputs=[{"name": "y"}]), _row(2), _row(3)])),
    case("one asks for an unknown output", Together([_row(1), _row(2, outputs=[{"name": "z"}]), _row(3)]), MIXED),
    case("one is cancelled", Together([_row(1), _row(2)], cancelled=frozenset([0])), HANGS),
    case("raw and typed", Together([_row(1), send(ask("batched", x=np.full((1, 2), 2, np.float32)))])),
]
