"""The table, part one: inference over REST."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import Any

from benchmarks.conformance.known import (
    ANY_TYPE,
    BFLOAT,
    BINARY,
    BREAKS,
    CODING,
    COERCED,
    CRASHED,
    IGNORED,
    LEAKS,
    MEANINGLESS,
    MISFIT,
    NO_ID,
    PADDED,
    PLAIN_PARAMETERS,
    RELOADED,
    STRAIGHT,
    TWICE,
    UNDECLARED,
    UNPACKED,
)
from benchmarks.conformance.language import Rest, case, get, infer, post, x

_FP32 = x("FP32", [1, 2], [1.5, -2.25])
_ONE = x("FP32", [1, 1], [0.5])
_A, _B = x("FP32", [1, 3], [1, 2, 3], "a"), x("FP32", [1, 3], [10, 20, 30], "b")
_LINE = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -2.25]}

# Each datatype at its edges.
_EDGES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-32768, 32767],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [-65504.0, 6e-8],
    "FP32": [-3.4028234663852886e38, 1.401298464324817e-45],
    "FP64": [-1.7976931348623157e308, 5e-324],
}


def _without(key: str, tensor: dict[str, Any] = _LINE) -> dict[str, Any]:
    return {name: value for name, value in tensor.items() if name != key}


def _text(body: str, model: str = "fp32") -> Rest:
    return post(f"/models/{model}/infer", body.encode())


def _binary(data: bytes, size: int | None = None, **parameters: Any) -> Rest:
    told = {**_without("data"), "parameters": {"binary_data_size": len(data), **parameters}}
    head = json.dumps({"inputs": [told]}).encode()
    length = len(head) if size is None else size
    return post("/models/fp32/infer", head + data, inference_header_content_length=str(length))


_ZIPPED = gzip.compress(json.dumps({"inputs": [_FP32]}).encode())
_LONG = x("FP32", [20, 100], list(range(2000)))
_RAW = b"\0\0\xc0\x3f\0\0\x10\xc0"  # 1.5, -2.25

DATATYPES = [
    *[
        case(f"{datatype} at its edges", infer(datatype.lower(), x(datatype, [1, 2], data)))
        for datatype, data in _EDGES.items()
    ],
    *[case(f"{datatype}, no row", infer(datatype.lower(), x(datatype, [0, 2], []))) for datatype in _EDGES],
    *[
        case(f"{datatype} over its edge", infer(datatype.lower(), x(datatype, [1, 2], [0, data[1] + 1])), CRASHED)
        for datatype, data in _EDGES.items()
        if "INT" in datatype
    ],
    case("BYTES", infer("bytes", x("BYTES", [2, 1], ["one", "zwölf \U0001f600"]))),
    case("BYTES, empty text", infer("bytes", x("BYTES", [1, 1], [""]))),
    case("BYTES, content_type str", infer("bytes", x("BYTES", [2, 1], ["a", "b"], content_type="str"))),
    case("BYTES of numbers", infer("bytes", x("BYTES", [2, 1], [1, 2])), COERCED),
    case("BYTES, no row", infer("bytes", x("BYTES", [0, 1], []))),
    case("BF16", infer("bf16", x("BF16", [1, 2], [1.0, 2.0])), BFLOAT),
    case("BOOL as 0 and 1", infer("bool", x("BOOL", [1, 2], [0, 1])), COERCED),
    case("INT32 of a fraction", infer("int32", x("INT32", [1, 2], [1.5, 2])), COERCED),
    case("INT32 of a whole float", infer("int32", x("INT32", [1, 2], [1.0, 2.0])), COERCED),
    case("INT32 of texts", infer("int32", x("INT32", [1, 2], ["1", "2"])), COERCED),
    case("INT32 of truth", infer("int32", x("INT32", [1, 2], [True, False])), COERCED),
    case("FP32 of integers", infer("fp32", x("FP32", [1, 2], [1, 2]))),
    case("FP32 of texts", infer("fp32", x("FP32", [1, 2], ["1", "2"])), COERCED),
    case("FP32 of truth", infer("fp32", x("FP32", [1, 2], [True, False])), COERCED),
    case("FP32 of null", infer("fp32", x("FP32", [1, 2], [None, 1]))),
    case("FP64 of null", infer("fp64", x("FP64", [1, 2], [None, 1]))),
    case("INT32 of null", infer("int32", x("INT32", [1, 2], [None, 1])), CRASHED),
    case("FP32 of 1e39", infer("fp32", x("FP32", [1, 2], [1e39, 1])), COERCED),
    case("FP32, every digit", infer("fp32", x("FP32", [1, 2], [0.1, 1 / 3]))),
    case("FP64, every digit", infer("fp64", x("FP64", [1, 2], [0.1, 1 / 3]))),
    case("NaN by name", _text('{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[NaN]}]}')),
    case("Infinity by name", _text('{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[Infinity]}]}')),
    case("an unknown datatype", infer("fp32", x("FLOAT", [1, 1], [1]))),
    case("a datatype in small letters", infer("fp32", x("fp32", [1, 1], [1]))),
    case("another datatype than declared", infer("fp32", x("INT64", [1, 1], [1])), UNDECLARED),
]

SHAPES = [
    case("flat", infer("fp32", x("FP32", [2, 2], [1, 2, 3, 4]))),
    case("nested", infer("fp32", x("FP32", [2, 2], [[1, 2], [3, 4]]))),
    case("three dimensions, nested", infer("cube", x("FP32", [1, 2, 2], [[[1, 2], [3, 4]]]))),
    case("three dimensions, flat", infer("cube", x("FP32", [1, 2, 2], [1, 2, 3, 4]))),
    case("nested otherwise than the shape", infer("fp32", x("FP32", [2, 2], [[1, 2, 3, 4]])), MISFIT),
    case("ragged", infer("fp32", x("FP32", [2, 2], [[1, 2, 3], [4]])), CRASHED),
    case("too few values", infer("fp32", x("FP32", [2, 2], [1, 2, 3])), CRASHED),
    case("too many values", infer("fp32", x("FP32", [2, 2], [1, 2, 3, 4, 5])), CRASHED),
    case("a negative dimension", infer("fp32", x("FP32", [-1, 2], [1, 2])), MISFIT),
    case("two negative dimensions", infer("fp32", x("FP32", [-1, -2], [1, 2])), CRASHED),
    case("a fractional dimension", infer("fp32", x("FP32", [1.5, 2], [1, 2, 3]))),
    case("a dimension as text", infer("fp32", x("FP32", ["1", "2"], [1, 2])), COERCED),
    case("a dimension beyond 64 bits", infer("fp32", x("FP32", [2**70, 1], [1]))),
    case("no dimensions", infer("fp32", x("FP32", [], [1])), UNDECLARED),
    case("one dimension, as declared", infer("vector", x("FP32", [3], [1, 2, 3])), PADDED),
    case("one dimension, where two are declared", infer("fp32", x("FP32", [2], [1, 2])), UNDECLARED),
    case("three dimensions, where two are declared", infer("fp32", x("FP32", [1, 1, 2], [1, 2])), UNDECLARED),
    case("another size than declared", infer("cube", x("FP32", [1, 2, 3], [1, 2, 3, 4, 5, 6])), UNDECLARED),
    case("ten thousand values", infer("fp32", x("FP32", [100, 100], list(range(10_000))))),
]

BODIES = [
    case("no body", post("/models/fp32/infer")),
    case("not JSON", _text("{inputs: []}")),
    case("JSON cut short", _text('{"inputs": [')),
    case("not UTF-8", post("/models/fp32/infer", b'{"inputs": "\xff"}')),
    case("a list", _text("[]")),
    case("null", _text("null")),
    case("no inputs", _text("{}")),
    case("empty inputs", _text('{"inputs": []}'), CRASHED),
    case("inputs of another kind", _text('{"inputs": 5}')),
    case("an input of another kind", _text('{"inputs": [5]}')),
    *[case(f"an input without {key}", infer("fp32", _without(key))) for key in _LINE],
    case("data of another kind", infer("fp32", x("FP32", [1, 1], 5)), MISFIT),
    case("data null", infer("fp32", x("FP32", [1, 1], None)), MISFIT),
    case("data an object", infer("fp32", x("FP32", [1, 1], {"0": 1})), CRASHED),
    case("a name of another kind", infer("fp32", {**_LINE, "name": 5})),
    case("an unknown key", infer("fp32", _FP32, colour="red"), MEANINGLESS),
    case("an unknown key of an input", infer("fp32", {**_LINE, "colour": "red"}), MEANINGLESS),
    case("without a content type", Rest("/v2/models/fp32/infer", json.dumps({"inputs": [_LINE]}).encode())),
    case("another content type", post("/models/fp32/infer", {"inputs": [_LINE]}, content_type="text/plain"), ANY_TYPE),
    case("in chunks", replace(infer("fp32", _FP32), chunked=True)),
    case("a byte order mark", _text("\ufeff" + json.dumps({"inputs": [_LINE]}))),
    case("nested a thousand deep", _text('{"inputs": ' + "[" * 1000 + "]" * 1000 + "}"), CRASHED),
    case("a key given twice", _text('{"id": "1", "id": "2", "inputs": [' + json.dumps(_LINE) + "]}")),
]

NAMES = [
    case("two inputs, all outputs", infer("sum", _A, _B)),
    case("two inputs in the other order", infer("sum", _B, _A)),
    case("one output asked for", infer("sum", _A, _B, outputs=[{"name": "difference"}])),
    case("both outputs, turned round", infer("sum", _A, _B, outputs=[{"name": "difference"}, {"name": "sum"}])),
    case("outputs: none", infer("sum", _A, _B, outputs=[])),
    case("outputs: null", infer("sum", _A, _B, outputs=None)),
    case("an output asked for twice", infer("sum", _A, _B, outputs=[{"name": "sum"}, {"name": "sum"}]), TWICE),
    case("an unknown output", infer("sum", _A, _B, outputs=[{"name": "product"}]), RELOADED),
    case("an output without a name", infer("sum", _A, _B, outputs=[{}])),
    case("an input is missing", infer("sum", _A), CRASHED),
    case("an input too many", infer("sum", _A, _B, x("FP32", [1, 3], [1, 2, 3], "c")), UNDECLARED),
    case("an input twice", infer("sum", _A, _A, _B), TWICE),
    case("an input of another name", infer("fp32", {**_LINE, "name": "z"}), CRASHED),
    case("an unknown model", infer("nobody", _FP32)),
    case("an unknown version", post("/models/versions/versions/7/infer", {"inputs": [_ONE]})),
    case("a version of a model without", post("/models/fp32/versions/1/infer", {"inputs": [_FP32]})),
    case("a version", post("/models/versions/versions/2/infer", {"inputs": [_ONE]})),
    case("the newest version", infer("versions", _ONE)),
    case("a model that is not loaded", infer("late", _ONE)),
    case("a name of five thousand letters", infer("m" * 5000, _FP32)),
    case("a name beyond ASCII", infer("%C3%BC", _FP32)),
    case("a model's name in percent code", post("/models/%66p32/infer", {"inputs": [_FP32]})),
    case("a path in a model's name", post("/models/..%2Ffp32/infer", {"inputs": [_FP32]})),
    case("a model that fails", infer("choosy", x("FP32", [1, 1], [2]))),
]

IDS = [
    case("an id", infer("fp32", _FP32, id="seven")),
    case("no id", infer("fp32", _FP32)),
    case("id null", infer("fp32", _FP32, id=None)),
    case("an empty id", infer("fp32", _FP32, id=""), NO_ID),
    case("an id that is a number", infer("fp32", _FP32, id=7)),
    case("an id beyond ASCII", infer("fp32", _FP32, id="sieben\u00fc")),
    case("an id of two lines", infer("fp32", _FP32, id="a\r\nb: c"), BREAKS),
    case("parameters", infer("fp32", _FP32, parameters={"a": 1, "b": "two", "c": True, "d": 0.5, "e": None})),
    case("parameters: null", infer("fp32", _FP32, parameters=None)),
    case("parameters of another kind", infer("fp32", _FP32, parameters=[])),
    case("a parameter that is an object", infer("fp32", _FP32, parameters={"a": {"b": 1}}), PLAIN_PARAMETERS),
    case("a parameter that is a list", infer("fp32", _FP32, parameters={"a": [1]}), PLAIN_PARAMETERS),
    case("parameters of an input", infer("fp32", x("FP32", [1, 2], [1, 2], content_type="np"))),
    case("an unknown content type", infer("fp32", x("FP32", [1, 2], [1, 2], content_type="nothing"))),
    case("parameters of an output", infer("sum", _A, _B, outputs=[{"name": "sum", "parameters": {"a": 1}}])),
    case(
        "classification asked for",
        infer("sum", _A, _B, outputs=[{"name": "sum", "parameters": {"classification": 2}}]),
        IGNORED,
    ),
    case(
        "shared memory asked for",
        infer("sum", _A, _B, outputs=[{"name": "sum", "parameters": {"shared_memory_region": "r"}}]),
        IGNORED,
    ),
    case("shared memory offered", infer("fp32", {**_without("data"), "parameters": {"shared_memory_region": "r"}})),
    case("headers of our own", post("/models/fp32/infer", {"inputs": [_FP32]}, x_request_id="17", seldon_model="m")),
]

CODINGS = [
    case("gzip in", post("/models/fp32/infer", _ZIPPED, content_encoding="gzip")),
    case("gzip in, broken", post("/models/fp32/infer", b"no gzip", content_encoding="gzip"), RELOADED),
    case("gzip in, cut short", post("/models/fp32/infer", _ZIPPED[:-9], content_encoding="gzip"), RELOADED),
    case("an unknown coding in", post("/models/fp32/infer", {"inputs": [_FP32]}, content_encoding="zstd"), CODING),
    case(
        "gzip out, long",
        post("/models/fp32/infer", {"inputs": [_LONG]}, accept_encoding="gzip"),
    ),
    case("gzip out, short", post("/models/fp32/infer", {"inputs": [_FP32]}, accept_encoding="gzip")),
    case(
        "gzip refused",
        post("/models/fp32/infer", {"inputs": [_LONG]}, accept_encoding="gzip;q=0"),
        UNPACKED,
    ),
    case("binary in", _binary(_RAW), BINARY),
    case("binary out", infer("fp32", _FP32, parameters={"binary_data_output": True}), BINARY),
    case("binary of the wrong size", _binary(_RAW[:-1])),
    case("a header longer than the body", _binary(_RAW, 10_000)),
    case("events", post("/models/fp32/infer_stream", {"inputs": [_FP32], "id": "7"}), LEAKS),
    case("events, unknown model", post("/models/nobody/infer_stream", {"inputs": [_FP32]}), CRASHED),
    case("generate", post("/models/fp32/generate", {"inputs": [_FP32]})),
    case("generate a version", post("/models/versions/versions/2/generate", {"inputs": [_ONE]})),
    case("generate events", post("/models/fp32/generate_stream", {"inputs": [_FP32], "id": "7"}), LEAKS),
    case("a slash at the end", post("/models/fp32/infer/", {"inputs": [_FP32]}), STRAIGHT),
    case("infer by GET", get("/models/fp32/infer")),
    case("infer by PUT", Rest("/v2/models/fp32/infer", b"{}", method="PUT")),
    case("infer by OPTIONS", Rest("/v2/models/fp32/infer", method="OPTIONS")),
    case("a query", post("/models/fp32/infer?pretty=1", {"inputs": [_FP32]})),
    case("two slashes", post("/models//fp32/infer", {"inputs": [_FP32]})),
]

TORCHSCRIPT = [
    case("a row", infer("net", x("FP32", [1, 4], [0.1, 0.2, 0.3, 0.4]))),
    case("three rows", infer("net", x("FP32", [3, 4], [i / 10 for i in range(12)]))),
    case("NaN", infer("net", x("FP32", [1, 4], [None, 0.2, 0.3, 0.4]))),
    case("no row", infer("net", x("FP32", [0, 4], []))),
    case("another width", infer("net", x("FP32", [1, 5], [0.1, 0.2, 0.3, 0.4, 0.5])), RELOADED),
    case("another datatype", infer("net", x("FP64", [1, 4], [0.1, 0.2, 0.3, 0.4])), RELOADED),
    case("another name", infer("net", x("FP32", [1, 4], [0.1, 0.2, 0.3, 0.4], "z")), RELOADED),
    case("an unknown output", infer("net", x("FP32", [1, 4], [0.1, 0.2, 0.3, 0.4]), outputs=[{"name": "z"}]), RELOADED),
]
