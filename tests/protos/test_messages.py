"""Our messages live beside anybody else's stubs of the same names, and are the same bytes on the wire."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from protos import messages
from protos.errors import InvalidArgument
from protos.messages import ModelInferRequest, ModelInferResponse, parse
from protos.tensors import add_inputs

OURS = "from protos.messages import ModelInferRequest, ModelInferResponse, RepositoryIndexResponse"
THEIRS = {
    "mlserver": "from mlserver.grpc import dataplane_pb2 as theirs",
    "tritonclient": "from tritonclient.grpc import service_pb2 as theirs",
}
# Their bytes are ours and ours are theirs; fields that one of them lacks are left out.
EXCHANGE = """
import numpy as np
from protos.tensors import add_inputs, inputs_of, outputs_of

ours = ModelInferRequest(model_name="m", model_version="1", id="7")
ours.parameters["flag"].bool_param = True
ours.parameters["n"].int64_param = -3
add_inputs(ours, {"x": np.array([[1.5, np.nan]], np.float32), "t": np.array(["é", ""])}, raw=True)
typed = ModelInferRequest()
add_inputs(typed, {"a": np.ones(1), "b": np.array([-1], np.int8), "c": np.array([True])}, raw=False)
for request in (ours, typed):
    echoed = theirs.ModelInferRequest.FromString(request.SerializeToString())
    assert ModelInferRequest.FromString(echoed.SerializeToString()) == request
    assert not ModelInferRequest.FromString(echoed.SerializeToString()).FindInitializationErrors()
    assert [each.name for each in echoed.inputs] == [each.name for each in request.inputs]
echoed = theirs.ModelInferRequest.FromString(ours.SerializeToString())
assert echoed.parameters["n"].int64_param == -3
assert echoed.raw_input_contents[0] == ours.raw_input_contents[0]
assert list(theirs.ModelInferRequest.FromString(typed.SerializeToString()).inputs[1].contents.int_contents) == [-1]

answer = theirs.ModelInferResponse(model_name="m", id="7")
answer.outputs.add(name="y", datatype="FP32", shape=[2]).contents.fp32_contents.extend([0.5, 2.0])
assert outputs_of(ModelInferResponse.FromString(answer.SerializeToString()))["y"].tolist() == [0.5, 2.0]
index = RepositoryIndexResponse()
index.models.add(name="m", version="1", state="READY", reason="")
assert theirs.RepositoryIndexResponse.FromString(index.SerializeToString()).models[0].state == "READY"
"""


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
@pytest.mark.parametrize("package", THEIRS)
def test_ours_and_theirs_share_a_process_and_the_wire(package, order):
    """A process each: MLServer's stubs and Triton's cannot be imported together."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    imports = [OURS, THEIRS[package]] if order == "ours first" else [THEIRS[package], OURS]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*imports, EXCHANGE])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_float_parameter_arrives_as_triton_sends_it():
    """MLServer's own stubs lack double_param, and drop it."""
    request = ModelInferRequest()
    request.parameters["temperature"].double_param = 0.5
    request.parameters["seed"].uint64_param = 2**64 - 1
    again = ModelInferRequest.FromString(request.SerializeToString())
    assert again.parameters["temperature"].double_param == 0.5
    assert again.parameters["seed"].uint64_param == 2**64 - 1


def test_every_message_that_is_promised_is_there():
    for name in messages.__all__:
        assert hasattr(messages, name), name


def test_bytes_that_are_no_message_are_the_callers_fault():
    with pytest.raises(InvalidArgument, match=r"the request is not a inference\.ModelInferRequest"):
        parse(ModelInferRequest, b"\xff\xff\xff")


def test_fields_of_a_newer_protocol_survive_a_hop():
    """A router that parses and forwards must not drop what it does not know."""
    request = ModelInferRequest(model_name="m")
    add_inputs(request, {"x": np.array([1], np.float32)}, raw=True)
    newer = request.SerializeToString() + b"\xfa\x01\x03new"
    hop = ModelInferRequest.FromString(newer)
    hop.model_name = "n"
    assert b"\xfa\x01\x03new" in hop.SerializeToString()


def test_messages_can_be_written_again_in_the_same_bytes():
    response = ModelInferResponse(model_name="m", id="1")
    response.outputs.add(name="y", datatype="FP32", shape=[0])
    body = response.SerializeToString()
    assert ModelInferResponse.FromString(body).SerializeToString() == body
