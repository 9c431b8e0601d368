"""Asks a runtime with Triton's own clients; its message classes clash with MLServer's, so it is a process of its own.

python -m tests.runtime.triton ADDRESS: exits with 0 when every answer is right.
"""

from __future__ import annotations

import json
import sys
from typing import Any

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
    assert not client.is_model_ready("nobody")
    with pytest.raises(tritonclient.utils.InferenceServerException, match="not supported; unload each model"):
        client.unload_model("mlp", unload_dependents=True)
    client.close()


def configure(library, address: str, **options) -> None:
    """What is told and counted, and what a load may change."""
    client = library.InferenceServerClient(address)

    def config(**asked) -> dict[str, Any]:
        told: dict[str, Any] = client.get_model_config("times", **asked, **options)
        inner: dict[str, Any] = told.get("config", told)
        return inner

    def counts() -> dict[str, int]:
        told: dict[str, Any] = client.get_inference_statistics("times", **options)
        return {each["version"]: int(each.get("inference_count", 0)) for each in told["model_stats"]}

    assert config()["max_batch_size"] == 64
    assert [int(size) for size in config(model_version="2")["input"][0]["dims"]] == [4]
    before = counts()
    x = library.InferInput("x", (3, 4), "FP32")
    x.set_data_from_numpy(np.repeat(X, 3, axis=0))
    client.infer("times", [x], model_version="2")
    assert counts() == {**before, "2": before["2"] + 3}

    client.load_model("times", config=json.dumps({"max_batch_size": 8}))
    assert config()["max_batch_size"] == 8
    np.testing.assert_array_equal(client.infer("times", [x]).as_numpy("y"), np.repeat(10 * X, 3, axis=0))
    client.load_model("times")
    assert config()["max_batch_size"] == 64
    for said, sentence in (
        ({"config": '{"backend": "pytorch"}'}, 'no field named "backend"'),
        ({"config": "{}", "files": {"file:1/model.pt": b"code"}}, "files do not come with a request"),
    ):
        with pytest.raises(tritonclient.utils.InferenceServerException, match=sentence):
            client.load_model("times", **said)
    for ours_not in (client.get_trace_settings, client.get_log_settings, client.get_system_shared_memory_status):
        with pytest.raises(tritonclient.utils.InferenceServerException, match=r"unknown method|there is no"):
            ours_not()
    client.close()


def main(address: str) -> None:
    """Asks over gRPC, then over HTTP, in bytes and in JSON."""
    ask(tritonclient.grpc, address)
    ask(tritonclient.http, address, binary_data=True)
    ask(tritonclient.http, address, binary_data=False)
    configure(tritonclient.grpc, address, as_json=True)
    configure(tritonclient.http, address)

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
