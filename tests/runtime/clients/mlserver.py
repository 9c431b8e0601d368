"""Asks with the stubs that MLServer ships; a process of its own, as they clash with Triton's and KServe's.

python -m tests.runtime.clients.mlserver ADDRESS: exits with 0 when every answer is right.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.grpc import converters, dataplane_pb2
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, Parameters, RequestInput, RequestOutput

ROWS = [[1.5, -2.0, 0.0], [4.0, 5.0, 6.25]]


def health(stub: Any) -> None:
    assert stub.ServerLive(dataplane_pb2.ServerLiveRequest()).live
    assert stub.ServerReady(dataplane_pb2.ServerReadyRequest()).ready
    assert stub.ModelReady(dataplane_pb2.ModelReadyRequest(name="fp32")).ready
    assert not stub.ModelReady(dataplane_pb2.ModelReadyRequest(name="nobody")).ready


def metadata(stub: Any) -> None:
    told = stub.ModelMetadata(dataplane_pb2.ModelMetadataRequest(name="fp32"))
    assert (told.name, told.platform) == ("fp32", "identity")
    assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == [("x", "FP32", [-1, -1])]
    assert stub.ServerMetadata(dataplane_pb2.ServerMetadataRequest()).name == "croupier"
    unknown = dataplane_pb2.ModelMetadataRequest(name="nobody")
    refused(lambda: stub.ModelMetadata(unknown), grpc.StatusCode.NOT_FOUND)


def inference(stub: Any) -> None:
    """As their own types and converters write a request and read an answer: typed, in the end."""
    asked = InferenceRequest(
        id="7",
        parameters=Parameters(content_type="np"),
        inputs=[RequestInput(name="x", datatype="FP64", shape=[2, 3], data=[each for row in ROWS for each in row])],
        outputs=[RequestOutput(name="y")],
    )
    request = converters.ModelInferRequestConverter.from_types(asked, model_name="fp64", model_version=None)
    answer = converters.ModelInferResponseConverter.to_types(stub.ModelInfer(request))
    assert answer.id == "7"
    assert answer.model_name == "fp64"
    (y,) = answer.outputs
    assert NumpyCodec.decode_output(y).tolist() == ROWS


def raw_inference(stub: Any) -> None:
    """NaN too, which MLServer itself cannot serve."""
    packed = struct.pack("<3f", 1.0, float("nan"), float("inf"))
    request = dataplane_pb2.ModelInferRequest(model_name="fp32", raw_input_contents=[packed])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    answer = stub.ModelInfer(request)
    assert list(answer.raw_output_contents) == [packed]
    request.raw_input_contents[0] = packed[:-1]
    refused(lambda: stub.ModelInfer(request), grpc.StatusCode.INVALID_ARGUMENT)


def texts(stub: Any) -> None:
    """BYTES as MLServer's codecs write them: as they are, and in base64."""
    plain = StringCodec.encode_input("x", ["a", "é"])
    coded = RequestInput(
        name="x", datatype="BYTES", shape=[2, 1], data=[b"AP8=", b""], parameters=Parameters(content_type="base64")
    )
    for given, expected in ((plain, [b"a", "é".encode()]), (coded, [b"\0\xff", b""])):
        asked = InferenceRequest(inputs=[given])
        request = converters.ModelInferRequestConverter.from_types(asked, model_name="bytes", model_version=None)
        (y,) = stub.ModelInfer(request).outputs
        assert list(y.contents.bytes_contents) == expected


def stream(stub: Any) -> None:
    """One answer a request, in order."""

    def requests() -> Any:
        for i in range(3):
            request = dataplane_pb2.ModelInferRequest(model_name="fp32", id=str(i))
            request.inputs.add(name="x", datatype="FP32", shape=[1, 1]).contents.fp32_contents.append(i)
            yield request

    answers = list(stub.ModelStreamInfer(requests()))
    assert [(each.id, list(each.outputs[0].contents.fp32_contents)) for each in answers] == [
        (str(i), [float(i)]) for i in range(3)
    ]


def repository(stub: Any) -> None:
    index = stub.RepositoryIndex(dataplane_pb2.RepositoryIndexRequest())
    assert {each.name: each.state for each in index.models}["int8"] == "READY"
    stub.RepositoryModelUnload(dataplane_pb2.RepositoryModelUnloadRequest(model_name="int8"))
    assert not stub.ModelReady(dataplane_pb2.ModelReadyRequest(name="int8")).ready
    stub.RepositoryModelLoad(dataplane_pb2.RepositoryModelLoadRequest(model_name="int8"))
    assert stub.ModelReady(dataplane_pb2.ModelReadyRequest(name="int8")).ready
    unknown = dataplane_pb2.RepositoryModelUnloadRequest(model_name="nobody")
    refused(lambda: stub.RepositoryModelUnload(unknown), grpc.StatusCode.NOT_FOUND)


def refused(ask: Callable[[], Any], code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        ask()
    error: Any = refusal.value
    assert error.code() is code, error


def main(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for asked in (health, metadata, inference, raw_inference, texts, stream, repository):
            asked(stub)


if __name__ == "__main__":
    main(sys.argv[1])
