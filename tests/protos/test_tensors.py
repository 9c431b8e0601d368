"""Tensors survive the wire to the bit, in every datatype and both forms; whatever does not fit is refused by name."""

from __future__ import annotations

import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protos.errors import InvalidArgument
from protos.messages import InferTensorContents, ModelInferRequest, ModelInferResponse
from protos.tensors import DATATYPES, add_inputs, add_outputs, datatype_of, inputs_of, outputs_of

NUMERIC = [name for name in DATATYPES if name != "BYTES"]
TYPED = [name for name in DATATYPES if name not in {"FP16", "BF16"}]
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def any_bits(datatype, shape):
    """Arrays of any bit pattern: NaN payloads, signalling ones too, infinities, minus zero, subnormals."""
    dtype = DATATYPES[datatype]
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    bits = st.binary(min_size=size, max_size=size)
    if datatype == "BOOL":
        bits = bits.map(lambda buffer: bytes(byte & 1 for byte in buffer))
    return bits.map(lambda buffer: np.frombuffer(buffer, dtype).reshape(shape))


def any_array(datatype):
    if datatype == "BYTES":
        return hnp.arrays(np.object_, shapes, elements=st.binary(max_size=9), fill=st.nothing())
    return shapes.flatmap(lambda shape: any_bits(datatype, shape))


def through_the_wire(array, *, raw):
    request = ModelInferRequest(model_name="m")
    add_inputs(request, {"x": array}, raw=raw)
    return inputs_of(ModelInferRequest.FromString(request.SerializeToString()))["x"]


def assert_identical(got, array):
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    if array.dtype.hasobject:
        assert got.tolist() == array.tolist()
    else:
        assert got.tobytes() == array.tobytes()


@pytest.mark.parametrize("datatype", DATATYPES)
@settings(max_examples=40)
@given(data=st.data())
def test_raw_tensors_come_back_to_the_bit(datatype, data):
    array = data.draw(any_array(datatype))
    assert_identical(through_the_wire(array, raw=True), array)


@pytest.mark.parametrize("datatype", TYPED)
@settings(max_examples=40)
@given(data=st.data())
def test_typed_tensors_come_back_to_the_bit(datatype, data):
    array = data.draw(any_array(datatype))
    assert_identical(through_the_wire(array, raw=False), array)


@pytest.mark.parametrize("datatype", TYPED)
@settings(max_examples=15)
@given(data=st.data())
def test_typed_contents_are_what_protobuf_itself_would_write(datatype, data):
    """BOOL, FP32 and FP64 are written as bytes; a client that reads the field must see the same elements."""
    array = data.draw(any_array(datatype))
    request = ModelInferRequest()
    add_inputs(request, {"x": array}, raw=False)
    contents, elements = request.inputs[0].contents, array.ravel().tolist()
    plain = InferTensorContents()
    for field, values in contents.ListFields():
        np.testing.assert_array_equal(list(values), elements)
        getattr(plain, field.name).extend(elements)
    assert len(contents.SerializeToString()) == len(plain.SerializeToString())


@pytest.mark.parametrize("datatype", NUMERIC)
def test_raw_buffers_are_viewed_not_copied(datatype):
    request = ModelInferRequest()
    add_inputs(request, {"x": np.ones((3, 2), DATATYPES[datatype])}, raw=True)
    array = inputs_of(request)["x"]
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_outputs_are_written_and_read_like_inputs():
    response = ModelInferResponse()
    arrays: dict[str, np.ndarray] = {
        "y": np.array([[1, 2]], np.float32),
        "z": np.array(7),
        "t": np.array([b"a", b""], object),
    }
    add_outputs(response, arrays, raw=True)
    assert [output.datatype for output in response.outputs] == ["FP32", "INT64", "BYTES"]
    assert len(response.raw_output_contents) == 3
    for name, array in outputs_of(response).items():
        assert_identical(array, arrays[name])


@pytest.mark.parametrize("raw", [True, False])
def test_any_memory_order_and_byte_order_is_written_right(raw):
    plain = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    for awkward in (
        plain.astype(">i4"),
        np.asfortranarray(plain),
        np.arange(48, dtype=np.int32).reshape(2, 3, 8)[:, :, ::2] // 2,
        np.arange(47, 23, -1, dtype=np.int32).reshape(2, 3, 4)[::-1, ::-1, ::-1] - 24,
    ):
        assert_identical(through_the_wire(awkward, raw=raw), plain)
    big_endian = np.array([1.5, -2.5, np.nan], ">f8")
    np.testing.assert_array_equal(through_the_wire(big_endian, raw=raw), [1.5, -2.5, np.nan])


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    "array",
    [np.array([["é", "ab"]]), np.array([["é".encode(), b"ab"]]), np.array([["é", b"ab"]], object)],
    ids=["U", "S", "object"],
)
def test_text_becomes_utf8(array, raw):
    assert through_the_wire(array, raw=raw).tolist() == [["é".encode(), b"ab"]]


def test_raw_bytes_are_laid_out_as_the_protocol_says():
    request = ModelInferRequest()
    add_inputs(request, {"x": np.array([b"ab", b""], object)}, raw=True)
    assert request.raw_input_contents[0] == b"\x02\0\0\0ab\0\0\0\0"


def test_raw_numbers_are_little_endian():
    request = ModelInferRequest()
    add_inputs(request, {"x": np.array([1], ">u2"), "y": np.array([1.0], ml_dtypes.bfloat16)}, raw=True)
    assert list(request.raw_input_contents) == [b"\x01\x00", b"\x80\x3f"]


def test_contents_from_a_newer_protocol_do_not_shift_the_elements():
    """Unknown fields travel with a message; the elements beside them must be found all the same."""
    contents = InferTensorContents(fp32_contents=[1.0, 2.0]).SerializeToString() + b"\xfa\x01\x03new"
    request = ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[2])
    tensor.contents.MergeFromString(b"\xfa\x01\x03old" + contents)
    assert inputs_of(request)["x"].tolist() == [1.0, 2.0]


def test_a_client_may_send_the_elements_one_by_one():
    """Writers that do not pack repeated fields send a tag before each element."""
    request = ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[2])
    tensor.contents.MergeFromString(b"".join(b"\x35" + struct.pack("<f", value) for value in (1.5, 2.5)))
    assert inputs_of(request)["x"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_datatype_of_is_the_inverse_in_either_byte_order(datatype):
    dtype = DATATYPES[datatype]
    assert datatype_of(dtype) == datatype
    assert datatype_of(dtype.newbyteorder(">")) == datatype


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "f8,i4", "f16"])
def test_what_v2_cannot_say_is_a_type_error_that_names_the_tensor(dtype):
    with pytest.raises(TypeError, match="'x': V2 has no datatype"):
        add_outputs(ModelInferResponse(), {"x": np.zeros(2, dtype)}, raw=True)


def test_a_bytes_element_of_another_type_is_a_type_error_that_names_the_tensor():
    with pytest.raises(TypeError, match=r"output 'x': element 1 of a BYTES tensor is int"):
        add_outputs(ModelInferResponse(), {"x": np.array([b"a", 5], object)}, raw=True)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_is_not_written_as_typed_contents(datatype):
    with pytest.raises(InvalidArgument, match=f"output 'y': {datatype} cannot travel as typed contents"):
        add_outputs(ModelInferResponse(), {"y": np.ones(2, DATATYPES[datatype])}, raw=False)


# ----------------------------------------------------------------------------------------------- refused


def raw_request(datatype, shape, *buffers):
    request = ModelInferRequest(raw_input_contents=buffers)
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    return request


def typed_request(datatype, shape, **contents):
    request = ModelInferRequest()
    request.inputs.add(name="x", datatype=datatype, shape=shape, contents=InferTensorContents(**contents))
    return request


def refusal(request):
    with pytest.raises(InvalidArgument) as refused:
        inputs_of(ModelInferRequest.FromString(request.SerializeToString()))
    return refused.value.message


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (
            raw_request("FP32", [1, 20], bytes(76)),
            "input 'x': FP32 of shape [1, 20] takes 80 bytes, its raw buffer has 76",
        ),
        (raw_request("FP32", [], bytes(8)), "input 'x': FP32 of shape [] takes 4 bytes, its raw buffer has 8"),
        (raw_request("BF16", [2], bytes(3)), "input 'x': BF16 of shape [2] takes 4 bytes, its raw buffer has 3"),
        (raw_request("FP32", [0], bytes(4)), "input 'x': FP32 of shape [0] takes 0 bytes, its raw buffer has 4"),
        (raw_request("FP32", [1], bytes(4), bytes(4)), "there are 1 inputs and 2 raw buffers; each needs one"),
        (raw_request("BOOL", [2], b"\1\2"), "input 'x': a raw BOOL is one byte, 0 or 1; its buffer has others"),
        (raw_request("FP32", [-1, -1], bytes(4)), "input 'x': shape [-1, -1] has a negative dimension"),
        (typed_request("FP32", [-1, 0]), "input 'x': shape [-1, 0] has a negative dimension"),
        (raw_request("fp32", [1], bytes(4)), "input 'x': unknown datatype 'fp32'; V2 has BOOL, UINT8,"),
        (typed_request("", []), "input 'x': unknown datatype ''; V2 has BOOL, UINT8,"),
        (
            raw_request("FP32", [2**62, 2**62], bytes(4)),
            f"input 'x': FP32 of shape [{2**62}, {2**62}] takes {2**126} bytes",
        ),
        (raw_request("INT8", [0, 2**62, 2**62], b""), f"input 'x': shape [0, {2**62}, {2**62}] is too large"),
        (
            raw_request("INT8", [1] * 65, b"\0"),
            "input 'x': its shape has 65 dimensions; 64 are the most an array can have",
        ),
        (
            raw_request("FP32", [2**63 - 1] * 100_000, b""),
            "input 'x': its shape has 100000 dimensions; 64 are the most an array can have",
        ),
        (
            typed_request("FP32", [2], fp32_contents=[1]),
            "input 'x': shape [2] takes 2 elements, its fp32_contents has 1",
        ),
        (typed_request("INT64", [1]), "input 'x': shape [1] takes 1 elements, its int64_contents has 0"),
        (
            typed_request("INT32", [], int_contents=[1, 2]),
            "input 'x': shape [] takes 1 elements, its int_contents has 2",
        ),
        (
            typed_request("FP64", [1], fp32_contents=[1]),
            "input 'x': the typed contents of FP64 belong in fp64_contents; it has fp32_contents",
        ),
        (
            typed_request("INT64", [1], int64_contents=[1], int_contents=[1]),
            "input 'x': the typed contents of INT64 belong in int64_contents; it has int_contents",
        ),
        (typed_request("FP16", [1], fp32_contents=[1]), "input 'x': FP16 cannot travel as typed contents; send"),
        (typed_request("BF16", [1], fp32_contents=[1]), "input 'x': BF16 cannot travel as typed contents; send"),
        (
            typed_request("INT8", [2], int_contents=[127, 128]),
            "input 'x': element [1] is 128; INT8 goes from -128 to 127",
        ),
        (
            typed_request("INT16", [1], int_contents=[-32769]),
            "input 'x': element [0] is -32769; INT16 goes from -32768 to 32767",
        ),
        (
            typed_request("UINT8", [2], uint_contents=[256, 3]),
            "input 'x': element [0] is 256; UINT8 goes from 0 to 255",
        ),
        (
            typed_request("UINT16", [1], uint_contents=[2**32 - 1]),
            "input 'x': element [0] is 4294967295; UINT16 goes from 0 to 65535",
        ),
        (
            typed_request("BYTES", [3], bytes_contents=[b"a"]),
            "input 'x': shape [3] takes 3 elements, its bytes_contents has 1; for one text, ",
        ),
        (
            raw_request("BYTES", [2], b"\1\0\0\0a\0\0"),
            "input 'x': its raw buffer ends before the length of element [1]; its shape takes 2",
        ),
        (
            raw_request("BYTES", [10**12], b"\1\0\0\0a"),
            "input 'x': its raw buffer ends before the length of element [1]; its shape takes 1000000000000",
        ),
        (
            raw_request("BYTES", [1], b"\xff\xff\xff\xffab"),
            "input 'x': element [0] should have 4294967295 bytes; its raw buffer has 2 left",
        ),
        (
            raw_request("BYTES", [1], b"\1\0\0\0a\0\0\0\0"),
            "input 'x': its raw buffer has 4 bytes after the 1 elements that its shape takes",
        ),
        (
            raw_request("BYTES", [0], b"\0"),
            "input 'x': its raw buffer has 1 bytes after the 0 elements that its shape takes",
        ),
    ],
)
def test_an_inconsistent_tensor_is_refused_with_a_sentence(request_, sentence):
    assert refusal(request_).startswith(sentence)


def test_too_few_raw_buffers_are_refused():
    request = ModelInferRequest(raw_input_contents=[bytes(4)])
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    request.inputs.add(name="y", datatype="FP32", shape=[1])
    assert refusal(request) == "there are 2 inputs and 1 raw buffers; each needs one"


def test_raw_and_typed_in_one_message_are_refused():
    request = raw_request("FP32", [1], bytes(4))
    request.inputs[0].contents.fp32_contents.append(1.0)
    assert refusal(request).startswith("input 'x': it has both a raw buffer and typed contents")


def test_empty_contents_beside_a_raw_buffer_are_nothing():
    """Some clients set the field without putting anything in it."""
    request = raw_request("FP32", [1], bytes(4))
    request.inputs[0].contents.SetInParent()
    assert inputs_of(request)["x"].tolist() == [0.0]


def test_a_name_counts_once():
    request = ModelInferRequest()
    for _ in range(2):
        request.inputs.add(name="x", datatype="FP32", shape=[0])
    assert refusal(request) == "input 'x' is given twice"


def test_an_output_is_called_an_output():
    response = ModelInferResponse()
    response.outputs.add(name="y", datatype="FP32", shape=[2])
    with pytest.raises(InvalidArgument, match=r"^output 'y': shape \[2\] takes 2 elements"):
        outputs_of(response)


@settings(max_examples=300)
@given(
    datatype=st.sampled_from([*DATATYPES, "FP8"]),
    shape=st.lists(st.integers(-1, 3) | st.sampled_from([2**31, 2**63 - 1, -(2**63)]), max_size=4),
    buffers=st.lists(st.binary(max_size=40), max_size=2),
    contents=st.fixed_dictionaries(
        {},
        optional={
            "bool_contents": st.lists(st.booleans(), max_size=4),
            "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
            "uint_contents": st.lists(st.integers(0, 2**32 - 1), max_size=4),
            "fp32_contents": st.lists(st.floats(width=32), max_size=4),
            "bytes_contents": st.lists(st.binary(max_size=4), max_size=4),
        },
    ),
)
def test_any_request_is_either_understood_or_refused(datatype, shape, buffers, contents):
    """Never another exception, and never an array that is not what the request said."""
    request = ModelInferRequest(raw_input_contents=buffers)
    request.inputs.add(name="x", datatype=datatype, shape=shape, contents=InferTensorContents(**contents))
    try:
        array = inputs_of(request)["x"]
    except InvalidArgument:
        return
    assert array.dtype == DATATYPES[datatype]
    assert list(array.shape) == shape
