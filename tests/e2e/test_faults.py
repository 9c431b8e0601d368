"""Whatever a client gets wrong is refused with the right status and a sentence, and the server goes on."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from protos.errors import Code
from protos.grpc import MAX_MESSAGE
from protos.messages import (
    DecideRequest,
    DescribeRouteRequest,
    FeedbackRequest,
    ModelInferRequest,
    ModelMetadataRequest,
    RepositoryModelLoadRequest,
)
from protos.v2 import SERVICE as V2
from router import Client
from router.wire import SERVICE
from tests.e2e.calls import ROWS, ask_rest, expect_answer, refused_grpc
from tests.e2e.conftest import ARMS

ROUTE = "multiply"
EIGHT_BYTES = ROWS.tobytes()
HUGE = 2**62
UNKNOWN = "0123456789abcdef0123456789abcdef"  # an id of our form, from long ago


@pytest.fixture
def address(server):
    """The server's, which serves on afterwards, with all of its arms: a client's fault is no arm's failure."""
    yield server.address
    assert expect_answer(server.address, ROUTE) in ARMS
    with Client(server.address) as client:
        assert all(arm.allowed for arm in client.describe(ROUTE).arms)


def refused_rest(address, path, body):
    """Status and sentence of a POST that is refused."""
    answer = ask_rest(address, path, body if isinstance(body, bytes) else json.dumps(body))
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    return answer.status_code, answer.json()["error"]


def as_json(value):
    """A value for a JSON body, in which protobuf wants numbers that are none in quotes."""
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    return value


def is_sentence(text):
    """Says something, on one line, and not in the words of a traceback."""
    return len(text) > 15 and "\n" not in text and "Traceback" not in text and "internal error" not in text


# ------------------------------------------------------------------------------------------------------- tensors


def given(**differently):
    """An input tensor of a gRPC request, right but for what is given."""
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], **differently}


def floats(*values):
    return {"contents": {"fp32_contents": values}}


GRPC_TENSORS = {
    "a raw buffer too short": ([given()], [b"1234"], r"'x'.*\[1, 2\] takes 8 bytes.* has 4"),
    "a raw buffer too long": ([given(shape=[1, 1])], [EIGHT_BYTES], r"'x'.*\[1, 1\] takes 4 bytes.* has 8"),
    "a raw buffer of another datatype": ([given(datatype="FP64")], [EIGHT_BYTES], r"'x'.*FP64.*16 bytes.* has 8"),
    "too many raw buffers": ([given()], [EIGHT_BYTES] * 2, r"1 inputs and 2 raw buffers"),
    "too few raw buffers": ([given(), given(name="n")], [EIGHT_BYTES], r"2 inputs and 1 raw buffers"),
    "both forms": ([given(**floats(1, 2))], [EIGHT_BYTES], r"'x'.*both"),
    "a negative dimension": ([given(shape=[-1, 2])], [EIGHT_BYTES], r"'x'.*\[-1, 2\].*negative"),
    "two negative dimensions": ([given(shape=[-1, -2])], [EIGHT_BYTES], r"'x'.*\[-1, -2\].*negative"),
    "dimensions that overflow": ([given(shape=[HUGE, 4])], [b""], rf"'x'.*\[{HUGE}, 4\]"),
    "dimensions that overflow around a 0": ([given(shape=[HUGE, HUGE, 0])], [b""], r"'x'.*too large"),
    "too many dimensions": ([given(shape=[1] * 65)], [b"1234"], r"'x'.*65 dimensions"),
    "no dimensions": ([given(shape=[])], [b"1234"], r"'x'.*declared FP32 \[-1, 2\].*has FP32 \[\]"),
    "an unknown datatype": ([given(datatype="FP33")], [EIGHT_BYTES], r"'x'.*'FP33'.*FP32"),
    "too few elements": ([given(**floats(1.0))], [], r"'x'.*\[1, 2\] takes 2 elements.* has 1"),
    "no data at all": ([given()], [], r"'x'.*\[1, 2\] takes 2 elements.* has 0"),
    "elements in another field": (
        [given(contents={"fp64_contents": [1, 2]})],
        [],
        r"'x'.*fp32_contents.*fp64_contents",
    ),
    "a datatype that the model does not take": (
        [given(datatype="FP64", contents={"fp64_contents": [1, 2]})],
        [],
        r"'x' is declared FP32 \[-1, 2\]; the request has FP64 \[1, 2\]",
    ),
    "a shape that the model does not take": (
        [given(shape=[2, 1])],
        [EIGHT_BYTES],
        r"'x' is declared.*has FP32 \[2, 1\]",
    ),
    "another rank": ([given(shape=[2])], [EIGHT_BYTES], r"'x' is declared.*has FP32 \[2\]"),
    "no inputs": ([], [], r"'x' is missing"),
    "an unexpected input": ([given(), given(name="z")], [EIGHT_BYTES] * 2, r"'z' is unexpected; the model takes 'x'"),
    "a wrong name": ([given(name="X")], [EIGHT_BYTES], r"'x' is missing; input 'X' is unexpected"),
    "an input twice": ([given(), given()], [EIGHT_BYTES] * 2, r"'x' is given twice"),
}


@pytest.mark.parametrize("what", GRPC_TENSORS)
def test_a_wrong_tensor_over_grpc(address, what):
    inputs, buffers, pattern = GRPC_TENSORS[what]
    request = ModelInferRequest(model_name=ROUTE, inputs=inputs, raw_input_contents=buffers)
    code, sentence = refused_grpc(address, V2 + "ModelInfer", request.SerializeToString())
    assert code is Code.INVALID_ARGUMENT
    assert re.search(pattern, sentence), sentence


def tensor(**differently):
    """An input tensor of a REST request, right but for what is given."""
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **differently}


REST_TENSORS = {
    "a negative dimension": ([tensor(shape=[-1, 2])], r"'x'.*\[-1, 2\].*negative"),
    "dimensions that overflow": ([tensor(shape=[HUGE, 4])], rf"'x'.*\[{HUGE}, 4\]"),
    "dimensions that overflow around a 0": ([tensor(shape=[HUGE, HUGE, 0], data=[])], r"'x'.*too large"),
    "a dimension beyond 64 bits": ([tensor(shape=[2**80, 2])], r"'x'.*elements"),
    "too many dimensions": ([tensor(shape=[1] * 65)], r"'x'.*65 dimensions"),
    "an unknown datatype": ([tensor(datatype="FP33")], r"'x'.*'FP33'.*FP32"),
    "too few elements": ([tensor(data=[1])], r"'x'.*\[1, 2\] takes 2 elements.* has 1"),
    "ragged lists": ([tensor(data=[[1, 2], [3]], shape=[2, 2])], r"'x'.*ragged"),
    "lists of another shape": ([tensor(data=[[1], [2]])], r"'x'.*nested as \[2, 1\].*\[1, 2\]"),
    "a text for a number": ([tensor(data=["one", "two"])], r"'x'.*`str`"),
    "a number beyond the datatype": ([tensor(data=[1e300, 2])], r"'x'.*1e\+300.*FP32"),
    "no data at all": ([{"name": "x", "datatype": "FP32", "shape": [1, 2]}], r"`data`"),
    "a datatype that the model does not take": (
        [tensor(datatype="FP64")],
        r"'x' is declared FP32 \[-1, 2\]; the request has FP64 \[1, 2\]",
    ),
    "a shape that the model does not take": ([tensor(shape=[2, 1])], r"'x' is declared.*has FP32 \[2, 1\]"),
    "no inputs": ([], r"'x' is missing"),
    "an unexpected input": ([tensor(), tensor(name="z")], r"'z' is unexpected; the model takes 'x'"),
    "a wrong name": ([tensor(name="X")], r"'x' is missing; input 'X' is unexpected"),
    "an input twice": ([tensor(), tensor()], r"'x' is given twice"),
}


@pytest.mark.parametrize("what", REST_TENSORS)
def test_a_wrong_tensor_over_rest(address, what):
    inputs, pattern = REST_TENSORS[what]
    status, sentence = refused_rest(address, f"/v2/models/{ROUTE}/infer", {"inputs": inputs})
    assert status == 422
    assert re.search(pattern, sentence), sentence


def test_a_missing_input_beside_a_right_one(address):
    request = ModelInferRequest(model_name="product", inputs=[given(**floats(1, 2))])
    code, sentence = refused_grpc(address, V2 + "ModelInfer", request.SerializeToString())
    assert code is Code.INVALID_ARGUMENT
    assert "input 'n' is missing; the model takes 'x', 'n'" in sentence
    assert refused_rest(address, "/v2/models/product/infer", {"inputs": [tensor()]}) == (422, sentence)


def test_inputs_that_differ_in_rows(address):
    n = {"name": "n", "datatype": "INT64", "shape": [2, 1]}
    request = ModelInferRequest(
        model_name="product", inputs=[given(**floats(1, 2)), {**n, "contents": {"int64_contents": [1, 2]}}]
    )
    code, sentence = refused_grpc(address, V2 + "ModelInfer", request.SerializeToString())
    assert code is Code.INVALID_ARGUMENT
    assert "number of rows: 'x' 1, 'n' 2" in sentence
    body = {"inputs": [tensor(), {**n, "data": [1, 2]}]}
    assert refused_rest(address, "/v2/models/product/infer", body) == (422, sentence)


def test_an_output_that_the_model_does_not_give(address):
    request = ModelInferRequest(model_name=ROUTE, inputs=[given(**floats(1, 2))], outputs=[{"name": "z"}])
    code, sentence = refused_grpc(address, V2 + "ModelInfer", request.SerializeToString())
    assert code is Code.INVALID_ARGUMENT
    assert re.search(r"'z'.*'y'", sentence)
    body = {"inputs": [tensor()], "outputs": [{"name": "z"}]}
    assert refused_rest(address, f"/v2/models/{ROUTE}/infer", body) == (422, sentence)


# ------------------------------------------------------------------------------------------ routes and decisions

RIGHT = ModelInferRequest(inputs=[given(**floats(1, 2))])

UNKNOWN_ROUTE = {
    V2 + "ModelInfer": ModelInferRequest(model_name="nobody", inputs=RIGHT.inputs),
    V2 + "ModelMetadata": ModelMetadataRequest(name="nobody"),
    SERVICE + "Decide": DecideRequest(route="nobody"),
    SERVICE + "DescribeRoute": DescribeRouteRequest(route="nobody"),
}


@pytest.mark.parametrize("method", UNKNOWN_ROUTE)
def test_an_unknown_route_over_grpc(address, method):
    code, sentence = refused_grpc(address, method, UNKNOWN_ROUTE[method].SerializeToString())
    assert code is Code.NOT_FOUND
    assert sentence == "unknown route 'nobody'; there are: multiply, product, split"


@pytest.mark.parametrize("path", ["/v2/models/nobody/infer", "/v1/routes/nobody/decide"])
def test_an_unknown_route_over_rest(address, path):
    body = {"inputs": [tensor()]} if path.endswith("infer") else {}
    assert refused_rest(address, path, body) == (404, "unknown route 'nobody'; there are: multiply, product, split")


def test_a_version_of_a_route(address):
    request = ModelInferRequest(model_name=ROUTE, model_version="1", inputs=RIGHT.inputs)
    code, sentence = refused_grpc(address, V2 + "ModelInfer", request.SerializeToString())
    assert code is Code.NOT_FOUND
    assert "no versions" in sentence
    body = {"inputs": [tensor()]}
    assert refused_rest(address, f"/v2/models/{ROUTE}/versions/1/infer", body) == (404, sentence)


def test_a_unit_that_is_not_a_text(address):
    request = ModelInferRequest(model_name=ROUTE, inputs=RIGHT.inputs)
    request.parameters["unit"].int64_param = 7
    code, sentence = refused_grpc(address, V2 + "ModelInfer", request.SerializeToString())
    assert code is Code.INVALID_ARGUMENT
    assert "'unit'" in sentence
    body = {"inputs": [tensor()], "parameters": {"unit": 7}}
    assert refused_rest(address, f"/v2/models/{ROUTE}/infer", body) == (422, sentence)


def test_a_route_cannot_be_loaded(address):
    body = RepositoryModelLoadRequest(model_name=ROUTE).SerializeToString()
    code, sentence = refused_grpc(address, V2 + "RepositoryModelLoad", body)
    assert code is Code.UNIMPLEMENTED
    assert "configuration" in sentence
    assert refused_rest(address, f"/v2/repository/models/{ROUTE}/load", b"") == (501, sentence)


# ------------------------------------------------------------------------------------------------------ feedback

FEEDBACK: dict[str, tuple[dict[str, Any], Code, str]] = {
    "unknown": ({"decision_id": UNKNOWN}, Code.NOT_FOUND, rf"unknown decision '{UNKNOWN}'"),
    "of another form": ({"decision_id": "nonsense"}, Code.NOT_FOUND, r"unknown decision 'nonsense'"),
    "missing": ({"decision_id": ""}, Code.NOT_FOUND, r"unknown decision ''"),
    "too high": ({"reward": 1.5}, Code.INVALID_ARGUMENT, r"reward: route 'multiply' takes 0.0 to 1.0"),
    "too low": ({"reward": -0.001}, Code.INVALID_ARGUMENT, r"reward: route 'multiply' takes 0.0 to 1.0"),
    "not a number": ({"reward": math.nan}, Code.INVALID_ARGUMENT, r"reward: .*not a number"),
    "infinite": ({"reward": math.inf}, Code.INVALID_ARGUMENT, r"reward: "),
    "a metric that is not declared": (
        {"metrics": {"loss": 1.0}},
        Code.INVALID_ARGUMENT,
        r"metrics: route 'multiply' declares profit, not 'loss'",
    ),
    "a metric that is not a number": ({"metrics": {"profit": math.nan}}, Code.INVALID_ARGUMENT, r"metrics: profit"),
    "a metric that is infinite": ({"metrics": {"profit": -math.inf}}, Code.INVALID_ARGUMENT, r"metrics: profit"),
    "a metric whose square is infinite": ({"metrics": {"profit": 1e200}}, Code.INVALID_ARGUMENT, r"metrics: profit"),
    "a truth that is not a number": ({"truth": math.nan}, Code.INVALID_ARGUMENT, r"truth: must be a number"),
}


@pytest.mark.parametrize("what", FEEDBACK)
def test_feedback_that_cannot_be_counted(address, what):
    """It leaves the decision without a reward: a right one counts afterwards, and then no other."""
    fields, expected, pattern = FEEDBACK[what]
    with Client(address) as client:
        decision = client.decide(ROUTE).decision_id
        fields = {"decision_id": decision, "reward": 1.0, **fields}

        code, sentence = refused_grpc(address, SERVICE + "Feedback", FeedbackRequest(**fields).SerializeToString())
        assert code is expected
        assert re.search(pattern, sentence), sentence
        assert refused_rest(address, "/v1/feedback", as_json(fields)) == (expected.http, sentence)

        right = FeedbackRequest(decision_id=decision, reward=1.0)
        client.reward(decision, 1.0)
    code, sentence = refused_grpc(address, SERVICE + "Feedback", right.SerializeToString())
    assert code is Code.ALREADY_EXISTS
    assert decision in sentence
    assert refused_rest(address, "/v1/feedback", {"decision_id": decision, "reward": 0}) == (409, sentence)


def test_a_batch_in_which_every_item_has_its_own_outcome(address):
    with Client(address) as client:
        decisions = [client.decide(ROUTE).decision_id for _ in range(3)]
    good, bad, last = ({"decision_id": decision, "reward": 1.0} for decision in decisions)
    bad["reward"] = 7.0
    items = [good, bad, {"decision_id": UNKNOWN, "reward": 1.0}, good, last]
    answer = ask_rest(address, "/v1/feedback/batch", json.dumps({"items": items}))
    assert answer.status_code == 200
    codes = [Code(outcome["code"]) for outcome in answer.json()["outcomes"]]
    assert codes == [Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.ALREADY_EXISTS, Code.OK]


# -------------------------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize(
    "method",
    [V2 + "ModelInfer", V2 + "ModelMetadata", V2 + "RepositoryIndex"]
    + [SERVICE + name for name in ("Feedback", "FeedbackBatch", "Decide", "DescribeRoute")],
)
@pytest.mark.parametrize("garbage", [b"\xff" * 20, b"\x0a\x05abc", RIGHT.SerializeToString()[:-3]])
def test_bytes_that_are_no_message(address, method, garbage):
    code, sentence = refused_grpc(address, method, garbage)
    assert code is Code.INVALID_ARGUMENT
    assert is_sentence(sentence)


@pytest.mark.parametrize("method", [V2 + "Nothing", "/nobody.Service/Method", "/"])
def test_an_unknown_method(address, method):
    code, sentence = refused_grpc(address, method, b"")
    assert code is Code.UNIMPLEMENTED
    assert method in sentence


def test_a_message_over_the_limit(address):
    body = bytes(MAX_MESSAGE + 1)
    code, sentence = refused_grpc(address, V2 + "ModelInfer", body)
    assert code is Code.RESOURCE_EXHAUSTED
    assert str(MAX_MESSAGE) in sentence
    status, sentence = refused_rest(address, f"/v2/models/{ROUTE}/infer", body)
    assert status == 413
    assert str(MAX_MESSAGE) in sentence


NO_JSON = {
    "cut short": b'{"inputs": [',
    "not text": b"\xff\xfe\x00",
    "a list": b"[]",
    "a number": b"7",
    "nested without end": b"[" * 100_000,
    "objects without end": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("what", NO_JSON)
@pytest.mark.parametrize("path", [f"/v2/models/{ROUTE}/infer", "/v1/feedback", "/v1/feedback/batch"])
def test_a_body_that_is_not_a_json_object(address, path, what):
    status, sentence = refused_rest(address, path, NO_JSON[what])
    assert status == 422
    assert is_sentence(sentence)


WRONG_FIELDS = {
    "an unknown key": (f"/v2/models/{ROUTE}/infer", {"inputs": [], "extra": 1}, "extra"),
    "an unknown key of a tensor": (f"/v2/models/{ROUTE}/infer", {"inputs": [tensor(dtype="FP32")]}, "dtype"),
    "a shape that is a text": (f"/v2/models/{ROUTE}/infer", {"inputs": [tensor(shape="1,2")]}, "shape"),
    "another route in the body": (
        f"/v2/models/{ROUTE}/infer",
        {"model_name": "product", "inputs": [tensor()]},
        "'product' in the body and 'multiply' in the URL",
    ),
    "an unknown key of feedback": ("/v1/feedback", {"decision": "1", "reward": 1}, "decision"),
    "a reward that is a text": ("/v1/feedback", {"decision_id": "1", "reward": "much"}, "reward"),
    "a reward beyond all numbers": ("/v1/feedback", {"decision_id": "1", "reward": 10**400}, "reward"),
    "an id that is a number": ("/v1/feedback", {"decision_id": 7}, "decision_id"),
    "metrics that are a list": ("/v1/feedback", {"decision_id": "1", "metrics": [1]}, "metrics"),
    "items that are a number": ("/v1/feedback/batch", {"items": 7}, "items"),
    "half a surrogate": (f"/v1/routes/{ROUTE}/decide", {"unit": "\ud800"}, "unit"),
}


@pytest.mark.parametrize("what", WRONG_FIELDS)
def test_json_of_the_wrong_form(address, what):
    path, body, named = WRONG_FIELDS[what]
    status, sentence = refused_rest(address, path, body)
    assert status == 422
    assert is_sentence(sentence)
    assert named in sentence


def test_a_path_and_a_verb_that_there_are_not(address):
    assert refused_rest(address, "/v3/nothing", {}) == (404, "there is no /v3/nothing here")
    status, sentence = refused_rest(address, "/v1/routes", {})
    assert status == 405
    assert "GET" in sentence
