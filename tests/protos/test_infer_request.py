"""A request that is taken apart is what protobuf reads, buffer for buffer, and refused where protobuf refuses it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protos import infer_request
from protos.errors import InvalidArgument
from protos.infer_request import LEAST, Viewed, parse_infer
from protos.messages import ModelInferRequest, parse
from protos.tensors import add_inputs, inputs_of

TEXTS = st.text(max_size=5)
BUFFERS = st.binary(max_size=300)


@st.composite
def requests(draw):
    request = ModelInferRequest(model_name=draw(TEXTS), model_version=draw(TEXTS), id=draw(TEXTS))
    for name in draw(st.lists(TEXTS, max_size=3)):
        request.inputs.add(name=name, datatype="FP32", shape=draw(st.lists(st.integers(-1, 9), max_size=3)))
    for name in draw(st.lists(TEXTS, max_size=2)):
        request.outputs.add(name=name)
    request.parameters["p"].int64_param = draw(st.integers(0, 9))
    request.raw_input_contents.extend(draw(st.lists(BUFFERS, max_size=3)))
    return request


def outcome(read, body):
    """What a reader makes of a body: the message, whole again, or its refusal."""
    try:
        request = read(body)
    except InvalidArgument as error:
        return str(error)
    whole = ModelInferRequest()
    for field in ("model_name", "model_version", "id"):
        setattr(whole, field, getattr(request, field))
    whole.inputs.extend(request.inputs)
    whole.outputs.extend(request.outputs)
    for name, value in request.parameters.items():
        whole.parameters[name].CopyFrom(value)
    whole.raw_input_contents.extend(bytes(each) for each in request.raw_input_contents)
    return whole


@pytest.fixture(autouse=True, scope="module")
def _every_size():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer_request, "LEAST", 0)
        yield


@given(requests())
def test_a_request_taken_apart_is_the_one_that_protobuf_reads(request):
    body = request.SerializeToString()
    assert isinstance(parse_infer(body), Viewed)
    assert outcome(parse_infer, body) == request


@given(requests(), requests())
def test_fields_may_come_in_any_order_and_more_than_once(one, other):
    body = one.SerializeToString() + other.SerializeToString()
    assert outcome(parse_infer, body) == outcome(lambda whole: parse(ModelInferRequest, whole), body)


@given(st.one_of(st.binary(max_size=60), st.tuples(requests(), st.binary(max_size=9), st.integers(0, 400))))
@example(bytes([0x3A]))  # a buffer without a length
@example(bytes([0x3A, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]))  # a length of too many bytes
@example(bytes([0x3A, 0x82, 0x00, 1, 2]))  # a length of more bytes than it needs
@example(bytes([0xBA, 0x00, 0x01, 0xFF]))  # the same of a tag
@example(bytes([0x3A, 5, 1, 2]))  # a buffer that is cut short
@example(bytes([0x38, 5]))  # a buffer that is a number
@example(bytes([0x02, 0]))  # a field without a number
@example(bytes([0x0A, 1, 0xFF]))  # a name that is no text
def test_what_protobuf_refuses_is_refused_and_nothing_else(given_body):
    if isinstance(given_body, tuple):
        request, noise, at = given_body
        body = request.SerializeToString()
        given_body = body[:at] + noise + body[at:]
    mine = outcome(parse_infer, given_body)
    theirs = outcome(lambda whole: parse(ModelInferRequest, whole), given_body)
    assert type(mine) is type(theirs)
    assert isinstance(mine, str) or mine == theirs


def test_one_of_more_fields_than_it_pays_to_look_at_is_left_to_protobuf():
    for count, viewed in ((999, True), (1001, False)):
        body = b"\x3a\x00" * count
        assert isinstance(parse_infer(body), Viewed) is viewed
        assert outcome(parse_infer, body) == outcome(lambda whole: parse(ModelInferRequest, whole), body)


def test_tensors_are_views_of_a_large_request_and_a_small_one_is_left_to_protobuf(monkeypatch):
    monkeypatch.setattr(infer_request, "LEAST", LEAST)
    for size, viewed in ((LEAST // 8, True), (8, False)):
        request = ModelInferRequest(model_name="m")
        given_arrays = {"x": np.arange(size, dtype=np.float64), "t": np.array([b"a", b"", b"bc"], np.object_)}
        add_inputs(request, given_arrays, raw=True)
        body = request.SerializeToString()
        read = parse_infer(body)
        assert isinstance(read, Viewed) is viewed
        arrays = inputs_of(read)
        assert np.shares_memory(arrays["x"], np.frombuffer(body, np.uint8)) is viewed
        for name, array in given_arrays.items():
            np.testing.assert_array_equal(arrays[name], array)
        assert [type(each) for each in arrays["t"]] == [bytes] * 3
