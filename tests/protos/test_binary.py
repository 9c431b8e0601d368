"""Tensors as bytes behind the JSON of an HTTP body: to the bit, wherever they stand, and refused by name."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protos.messages import ModelInferRequest, ModelInferResponse, ModelMetadataResponse, with_buffers
from protos.tensors import DATATYPES, add_inputs, add_outputs, buffer_of, inputs_of
from tests.protos.echo import Echo
from tests.protos.http import ask, refusal

X = np.array([[1.5, np.nan]], np.float32)


@pytest.fixture
def echo():
    return Echo()


def binary(array, name="x", datatype="FP32", **parts):
    """An input whose bytes follow the JSON."""
    size = len(buffer_of(array))
    told = {"name": name, "datatype": datatype, "shape": list(array.shape), "parameters": {"binary_data_size": size}}
    return told | parts


def infer(service, inputs, *buffers, size=None, path="/v2/models/echo/infer", **said):
    head = json.dumps({"inputs": inputs, **said}).encode()
    size = len(head) if size is None else size
    headers = {"Inference-Header-Content-Length": str(size)}
    return ask(service, "POST", path, content=b"".join([head, *map(bytes, buffers)]), headers=headers)


def parted(response):
    """The JSON and the bytes behind it."""
    assert response.status_code == 200, response.text
    if "inference-header-content-length" not in response.headers:
        assert response.headers["content-type"] == "application/json"
        return response.json(), b""
    assert response.headers["content-type"] == "application/octet-stream"
    size = int(response.headers["inference-header-content-length"])
    return json.loads(response.content[:size]), response.content[size:]


# -------------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("datatype", DATATYPES)
@settings(max_examples=20)
@given(data=st.data())
def test_every_datatype_survives_to_the_bit(datatype, data):
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if datatype == "BYTES":
        array = data.draw(hnp.arrays(np.object_, shape, elements=st.binary(max_size=5), fill=st.nothing()))
    elif datatype == "BOOL":
        array = data.draw(hnp.arrays(np.bool_, shape))
    else:
        size = int(np.prod(shape, dtype=int)) * DATATYPES[datatype].itemsize
        bits = data.draw(st.binary(min_size=size, max_size=size))
        array = np.frombuffer(bits, DATATYPES[datatype]).reshape(shape)
    buffer = bytes(buffer_of(array))
    service = Echo()
    told, behind = parted(
        infer(service, [binary(array, datatype=datatype)], buffer, parameters={"binary_data_output": True})
    )
    assert told["outputs"] == [
        {
            "name": "x",
            "datatype": datatype,
            "shape": list(array.shape),
            "parameters": {"binary_data_size": len(buffer)},
        }
    ]
    assert behind == buffer
    assert list(service.asked[0].raw_input_contents) == [buffer]


def test_what_concerns_the_bytes_alone_does_not_reach_the_model(echo):
    infer(
        echo,
        [binary(X, parameters={"binary_data_size": X.nbytes, "unit": "bp"})],
        X.tobytes(),
        parameters={"binary_data_output": True, "seed": 7},
        outputs=[{"name": "x", "parameters": {"binary_data": False, "digits": 2}}],
    )
    (asked,) = echo.asked
    assert set(asked.inputs[0].parameters) == {"unit"}
    assert set(asked.outputs[0].parameters) == {"digits"}
    assert set(asked.parameters) == {"seed"}


def test_each_input_and_each_output_may_choose(echo):
    """In the order of the JSON, whatever stands between."""
    a, b, c = np.arange(2.0), np.array([1, 2, 3]), np.array([b"a", b"bc"], np.object_)
    inputs = [
        binary(a, "a", "FP64"),
        {"name": "b", "datatype": "INT64", "shape": [3], "data": [1, 2, 3]},
        binary(c, "c", "BYTES"),
    ]
    wanted = [
        {"name": "a"},
        {"name": "b", "parameters": {"binary_data": True}},
        {"name": "c", "parameters": {"binary_data": False}},
    ]
    told, behind = parted(
        infer(echo, inputs, buffer_of(a), buffer_of(c), outputs=wanted, parameters={"binary_data_output": True})
    )
    arrays = inputs_of(echo.asked[0])
    assert [arrays[name].tolist() for name in "abc"] == [a.tolist(), b.tolist(), c.tolist()]
    assert [output.get("data") for output in told["outputs"]] == [None, None, ["a", "bc"]]
    assert [output.get("parameters") for output in told["outputs"]] == [
        {"binary_data_size": 16},
        {"binary_data_size": 24},
        None,
    ]
    assert behind == a.tobytes() + b.tobytes()


def test_an_answer_is_json_unless_bytes_are_asked_for(echo):
    told, behind = parted(infer(echo, [binary(X)], X.tobytes()))
    assert told["outputs"][0]["data"] == [1.5, None]
    assert behind == b""


def test_bytes_can_be_asked_for_in_a_request_of_json_alone(echo):
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]}
    body = {"inputs": [x], "parameters": {"binary_data_output": True}}
    _, behind = parted(ask(echo, "POST", "/v2/models/echo/infer", json=body))
    np.testing.assert_array_equal(np.frombuffer(behind, np.float32), X[0])


def test_typed_answers_travel_as_bytes_too(echo):
    async def typed(_body, _rpc):
        response = ModelInferResponse(model_name="echo")
        add_outputs(response, {"x": np.array([-1], np.int8)}, raw=False)
        response.outputs[0].parameters["unit"].string_param = "bp"
        return response.SerializeToString()

    echo.infer = typed
    told, behind = parted(infer(echo, [binary(X)], X.tobytes(), parameters={"binary_data_output": True}))
    assert told["outputs"][0]["parameters"] == {"unit": "bp", "binary_data_size": 1}
    assert behind == b"\xff"


def test_an_event_of_a_stream_is_json(echo):
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]}
    response = ask(echo, "POST", "/v2/models/echo/infer_stream", json={"inputs": [x]})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["croupier-decision"] == "d-1"
    assert response.content.startswith(b"data: {")
    assert response.content.endswith(b"}\n\n")
    assert json.loads(response.content.removeprefix(b"data: "))["outputs"][0]["data"] == [1.5, None]
    body = {"inputs": [x], "parameters": {"binary_data_output": True}}
    assert "bytes do not travel in events" in refusal(ask(echo, "POST", "/v2/models/echo/infer_stream", json=body))


# ------------------------------------------------------------------------------------------------------ bytes alone


def alone(service, body, path="/v2/models/echo/infer"):
    return ask(service, "POST", path, content=body, headers={"Inference-Header-Content-Length": "0"})


def declaring(*inputs):
    """A service whose model takes these; their names and datatypes, then their shapes."""
    service: Any = Echo()

    async def metadata(model, _version):
        told = ModelMetadataResponse(name=model)
        for name, datatype, *shape in inputs:
            told.inputs.add(name=name, datatype=datatype, shape=shape)
        return told

    service.model_metadata = metadata
    return service


@pytest.mark.parametrize(
    ("declared", "body", "shape"),
    [
        (("x", "FP32", -1, 4), bytes(48), [3, 4]),
        (("x", "FP32", 2, -1), bytes(48), [2, 6]),
        (("x", "FP32", -1, 4), b"", [0, 4]),
        (("x", "INT64", 2, 3), bytes(48), [2, 3]),
        (("x", "FP64"), bytes(8), []),
        (("x", "BF16", -1), bytes(6), [3]),
        (("x", "BYTES", -1), b"any text", [1]),
        (("x", "BYTES", -1, -1), b"", [1, 1]),
        (("x", "BYTES", 1), b"a", [1]),
    ],
)
def test_a_body_without_json_is_the_only_input(declared, body, shape):
    service = declaring(declared)
    told, behind = parted(alone(service, body, "/v2/models/echo/versions/1/infer"))
    (asked,) = service.asked
    assert (asked.model_name, asked.model_version, asked.inputs[0].name) == ("echo", "1", "x")
    (array,) = inputs_of(asked).values()
    assert list(array.shape) == shape
    assert told["outputs"][0]["shape"] == shape
    if declared[1] == "BYTES":
        assert array.ravel().tolist() == [body]
        assert behind == len(body).to_bytes(4, "little") + body
    else:
        assert array.tobytes() == behind == body


@pytest.mark.parametrize(
    ("declared", "length", "sentence"),
    [
        ([("x", "FP32", -1, 4)], 15, "input 'x' is declared FP32 [-1, 4]; 15 bytes without JSON do not tell its shape"),
        ([("x", "FP32", -1, -1)], 16, "input 'x' is declared FP32 [-1, -1]; 16 bytes without JSON do not tell"),
        ([("x", "FP32", -1, 0)], 16, "input 'x' is declared FP32 [-1, 0]; 16 bytes without JSON do not tell"),
        ([("x", "FP32", 2, 2)], 12, "input 'x' is declared FP32 [2, 2]; 12 bytes without JSON do not tell its shape"),
        ([("x", "BYTES", 2)], 12, "input 'x' is declared BYTES [2]; 12 bytes without JSON do not tell its shape"),
        ([("x", "FP32", -1), ("y", "FP32", -1)], 8, "a body without JSON is one input; the model declares 'x', 'y'"),
        ([], 8, "a body without JSON is one input; the model declares none"),
    ],
)
def test_a_body_without_json_that_tells_no_shape_is_refused(declared, length, sentence):
    service = declaring(*declared)
    assert refusal(alone(service, bytes(length))).startswith(sentence)
    assert service.asked == []


# --------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("given", "behind", "sentence"),
    [
        (binary(X), 7, "input 'x': binary_data_size is 8; the body has 7 bytes left for it"),
        (binary(X), 9, "1 bytes of the body belong to no input; each says its binary_data_size"),
        (binary(X, shape=[1, 3]), 8, "input 'x': FP32 of shape [1, 3] takes 12 bytes, its raw buffer has 8"),
        (binary(X, shape=[-1, 2]), 8, "input 'x': shape [-1, 2] has a negative dimension"),
        (binary(X, shape=[2**64]), 8, f"input 'x': shape [{2**64}] is too large for an array"),
        (binary(X, datatype="float"), 8, "input 'x': unknown datatype 'float'"),
        (binary(X, data=[1, 2]), 8, "input 'x': it has both data and binary_data_size; send one"),
        (binary(X, data=[]), 8, "input 'x': it has both data and binary_data_size; send one"),
        (binary(X, parameters={}), 8, "input 'x': it has neither `data` nor binary_data_size among its parameters"),
        (binary(X, parameters={"binary_data_size": -8}), 8, "input 'x': binary_data_size is -8; it is a number of"),
        (binary(X, parameters={"binary_data_size": "8"}), 8, "input 'x': binary_data_size is '8'; it is a number of"),
        (binary(X, parameters={"binary_data_size": True}), 1, "input 'x': binary_data_size is True; it is a number of"),
        (binary(X, parameters={"binary_data_size": 8.0}), 8, "input 'x': binary_data_size is 8.0; it is a number of"),
        (binary(X, datatype="BYTES"), 8, "input 'x': element [0] should have "),
    ],
)
def test_a_tensor_whose_bytes_do_not_fit_is_refused_by_name(given, behind, sentence):
    service = Echo()
    assert refusal(infer(service, [given], X.tobytes().ljust(behind)[:behind])).startswith(sentence)


@pytest.mark.parametrize("size", ["-1", "1e3", "x", "", "+5", "1_0", "9" * 30, "٣", "200"])
def test_a_length_of_the_json_that_is_none_is_refused(echo, size):
    response = infer(echo, [binary(X)], X.tobytes(), size=size.encode())
    assert refusal(response).startswith("Inference-Header-Content-Length is ")


def test_bytes_without_the_header_are_refused(echo):
    head = json.dumps({"inputs": [binary(X)]})
    assert refusal(ask(echo, "POST", "/v2/models/echo/infer", content=head)) == (
        "input 'x': it has binary_data_size, and no Inference-Header-Content-Length says where the JSON ends"
    )


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"parameters": {"binary_data_output": 1}}, "parameter 'binary_data_output' of the request is 1; it is true"),
        (
            {"outputs": [{"name": "x", "parameters": {"binary_data": "yes"}}]},
            "parameter 'binary_data' of output 'x' is 'yes'; it is true or false",
        ),
    ],
)
def test_a_choice_that_is_none_is_refused(echo, said, sentence):
    assert refusal(infer(echo, [binary(X)], X.tobytes(), **said)).startswith(sentence)


@settings(max_examples=100)
@given(body=st.binary(max_size=40), size=st.integers(0, 50))
def test_any_body_gets_an_answer_or_a_sentence(body, size):
    headers = {"Inference-Header-Content-Length": str(size)}
    response = ask(Echo(), "POST", "/v2/models/echo/infer", content=body, headers=headers)
    assert response.status_code == 200 or refusal(response)


# ---------------------------------------------------------------------------------------------------- without a copy


def test_buffers_are_written_as_protobuf_writes_them():
    arrays = {"a": np.arange(1000.0), "b": np.array(["x"]), "c": np.empty(0)}
    whole = ModelInferRequest(model_name="m")
    add_inputs(whole, arrays, raw=True)
    bare = ModelInferRequest.FromString(whole.SerializeToString())
    bare.ClearField("raw_input_contents")
    field = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
    assert with_buffers(bare, field, map(buffer_of, arrays.values())) == whole.SerializeToString()


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.bool_])
def test_a_buffer_is_a_view_of_the_array(dtype):
    array = np.zeros((2, 3), dtype)
    buffer = buffer_of(array)
    array[0, 0] = 1
    assert bytes(buffer) == array.tobytes() != bytes(array.nbytes)


def test_a_buffer_is_little_endian_and_row_by_row():
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    assert bytes(buffer_of(array)) == np.ascontiguousarray(array).astype("<f4").tobytes()
