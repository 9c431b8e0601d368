"""The table: a model written for MLServer, over REST."""

from __future__ import annotations

import gzip

from benchmarks.conformance.known import CRASHED, LEAKS, LETTERS, MISFIT, NO_NULL, RELOADED, STRAIGHT, UNSAYABLE
from benchmarks.conformance.language import case, get, infer, post, x

_FP32 = x("FP32", [1, 2], [1.5, -2.25])

HOSTED = [
    case("NumPy", infer("tells", x("FP32", [1, 2], [1, 2], content_type="np"))),
    case("texts", infer("tells", x("BYTES", [2, 1], ["a", "b"], content_type="str"))),
    case("a missing text", infer("tells", x("BYTES", [2, 1], ["a", None], content_type="str")), NO_NULL),
    case("base64", infer("tells", x("BYTES", [1, 1], ["AAEC"], content_type="base64"))),
    case("times", infer("tells", x("BYTES", [1, 1], ["2021-01-02T00:00:00"], content_type="datetime"))),
    case("a series", infer("tells", x("INT64", [3], [1, 2, 3], content_type="pd_series"))),
    case("a text as NumPy", infer("tells", x("BYTES", [1, 1], ["ab"], content_type="np"))),
    case("an unknown content type", infer("tells", x("FP32", [1, 1], [1], content_type="nothing"))),
    case("parameters reach it", infer("tells", _FP32, parameters={"a": 1, "b": "two", "c": True, "d": 0.5})),
    case("an id", infer("tells", _FP32, id="7")),
    case("a text whose shape counts its letters", infer("tells", x("BYTES", [2], ["ab"], content_type="str")), MISFIT),
    case("it counts the letters of a text", infer("tells", x("FP32", [1, 1], [1], "letters")), LETTERS),
    case("its parameter is a list", infer("tells", x("FP32", [1, 1], [1], "list")), UNSAYABLE),
    case("it refuses", infer("tells", x("FP32", [1, 1], [1], "wrong")), RELOADED),
    case("it lacks a parameter", infer("tells", x("FP32", [1, 1], [1], "worse")), RELOADED),
    case("it answers with a missing text", infer("tells", x("FP32", [1, 1], [1], "missing")), NO_NULL),
    case("it forbids", infer("tells", x("FP32", [1, 1], [1], "forbidden"))),
    case("it has a status of its own", infer("tells", x("FP32", [1, 1], [1], "teapot"))),
    case("it fails", infer("tells", x("FP32", [1, 1], [1], "worst"))),
    case("its metadata", get("/models/tells")),
    case("its header", post("/models/tells/infer", {"inputs": [_FP32]}, x_told="7")),
    case("declared content types", infer("declared", x("BYTES", [2, 1], ["a", "b"]))),
    case("the metadata of declared content types", get("/models/declared")),
    case("it answers with a header", infer("special", x("FP64", [1, 2], [1, 2]))),
    case(
        "it answers twice",
        post("/models/special/infer_stream", {"inputs": [x("FP64", [1, 2], [1, 2])]}),
        LEAKS,
    ),
    case("an endpoint of its own", get("/special")),
    case("its endpoint, a slash at the end", get("/special/"), STRAIGHT),
    case("its endpoint by POST", post("/special", {})),
    case("a list for its endpoint", post("/special/sum", [1, 2.5])),
    case("an object for its endpoint instead of a list", post("/special/sum", {"values": [1, 2.5]})),
    case("texts for its endpoint instead of numbers", post("/special/sum", ["a"])),
    case("its endpoint without a body", post("/special/sum")),
    case("its endpoint, not JSON", post("/special/sum", b"[1, 2")),
    case("gzip for its endpoint", post("/special/sum", gzip.compress(b"[1, 2.5]"), content_encoding="gzip")),
    case("a path and a query for its endpoint", get("/special/7?unit=km")),
    case("another path for its endpoint", get("/special/seven")),
    case("bytes and headers for its endpoint, in pieces back", post("/special/raw", b"\0\1\2", x_told="7")),
    case("its endpoint refuses", post("/special/fail?how=refuse"), RELOADED),
    case("its endpoint has a status of its own", post("/special/fail?how=status")),
    case("its endpoint fails", post("/special/fail?how=error")),
    case("it doubles", infer("doubles", x("FP64", [2, 2], [1, 2, 3, 4]))),
    case("it doubles NaN", infer("doubles", x("FP64", [1, 2], [None, 2]))),
    case("a shape that its values do not fill", infer("doubles", x("FP64", [2, 2], [1, 2, 3])), CRASHED),
]
