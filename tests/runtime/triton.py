"""Asks a runtime with Triton's own clients; its message classes clash with MLServer's, so it is a process of its own.

python -m tests.runtime.triton ADDRESS: exits with 0 when every answer is right.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

X = np.array([[1, 2, 3, 4]], np.float32)


def ask(library, address: str, **options) -> None:
    """What both clients have in common."""
    client = library.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("times")
    assert client.is_model_ready("times", "2")
    x = library.InferInput("x", X.shape, "FP32")
    x.set_data_from_numpy(X, **options)
    for version, factor in (("", 10), ("2", 2), ("10", 10)):
        result = client.infer("times", [x], model_version=version, request_id="r-1")
        np.testing.assert_array_equal(result.as_numpy("y"), factor * X)
    wanted = library.InferRequestedOutput("y", **options)
    result = client.infer("times", [x], outputs=[wanted], parameters={"note": "ignored"})
    np.testing.assert_array_equal(result.as_numpy("y"), 10 * X)
    with pytest.raises(tritonclient.utils.InferenceServerException, match="there is no model 'nobody'"):
        client.infer("nobody", [x])
    client.unload_model("mlp")
    assert not client.is_model_ready("mlp")
    client.load_model("mlp")
    assert client.is_model_ready("mlp")
    client.close()


def main(address: str) -> None:
    """Asks over gRPC, then over HTTP in JSON."""
    ask(tritonclient.grpc, address)
    ask(tritonclient.http, address, binary_data=False)

    client = tritonclient.grpc.InferenceServerClient(address)
    metadata = client.get_model_metadata("times")
    assert list(metadata.versions) == ["2", "10"], metadata
    assert metadata.platform == "pytorch_torchscript"
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [("x", "FP32", [-1, 4])]
    assert client.get_server_metadata().name == "croupier"
    states = {(each.name, each.version): each.state for each in client.get_model_repository_index().models}
    assert states == {
        ("mlp", ""): "READY",
        ("slow", ""): "READY",
        ("times", "10"): "READY",
        ("times", "2"): "READY",
    }, states


if __name__ == "__main__":
    main(sys.argv[1])
