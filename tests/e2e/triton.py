"""A client on NVIDIA's tritonclient, in a process of its own: its stubs clash with those of other clients.

    python -m tests.e2e.triton grpc|http HOST:PORT ROUTE

Asks a route all that a V2 client asks a model, reports a reward twice, and prints what it was told as JSON.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from typing import Any

import grpc
import numpy as np

ROWS = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


def over_grpc(address: str, route: str) -> dict[str, Any]:
    """The reward goes through our own client, whose messages must not clash with Triton's."""
    import tritonclient.grpc as triton

    from router import Client

    with triton.InferenceServerClient(address) as client:
        asked = triton.InferInput("x", ROWS.shape, "FP32")
        asked.set_data_from_numpy(ROWS)
        result = client.infer(
            route, [asked], outputs=[triton.InferRequestedOutput("y")], request_id="7", parameters={"unit": "ann"}
        )
        response = result.get_response()
        parameters = response.parameters
        told = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(route),
            "metadata": client.get_model_metadata(route, as_json=True),
            "index": client.get_model_repository_index(as_json=True)["models"],
            "name": response.model_name,
            "id": response.id,
            "y": result.as_numpy("y").tolist(),
            "decision": parameters["decision_id"].string_param,
            "arm": parameters["arm"].string_param,
            "propensity": parameters["propensity"].double_param,
        }
    with Client(address) as ours:
        told["rewarded"] = ours.reward(told["decision"], 1.0).arm
        try:
            ours.reward(told["decision"], 1.0)
        except grpc.RpcError as error:
            refused: Any = error
            told["again"] = refused.code().name
    return told


def over_http(address: str, route: str) -> dict[str, Any]:
    """Tensors as bytes behind the JSON, which is Triton's extension of V2's HTTP form, and all of it compressed."""
    import tritonclient.http as triton

    with triton.InferenceServerClient(address) as client:
        asked = triton.InferInput("x", ROWS.shape, "FP32")
        asked.set_data_from_numpy(ROWS)
        wanted = triton.InferRequestedOutput("y")
        in_json = triton.InferRequestedOutput("y", binary_data=False)
        plain = client.infer(route, [asked], outputs=[in_json], request_compression_algorithm="deflate")
        assert "data" in plain.get_output("y")
        result = client.infer(route, [asked], outputs=[wanted], request_id="7", parameters={"unit": "ann"})
        assert result.get_output("y")["parameters"]["binary_data_size"] == ROWS.nbytes
        response = result.get_response()
        parameters = response["parameters"]
        told = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(route),
            "metadata": client.get_model_metadata(route),
            "index": client.get_model_repository_index(),
            "name": response["model_name"],
            "id": response["id"],
            "y": result.as_numpy("y").tolist(),
            "decision": parameters["decision_id"],
            "arm": parameters["arm"],
            "propensity": parameters["propensity"],
        }
    body = json.dumps({"decision_id": told["decision"], "reward": 1.0}).encode()
    feedback = urllib.request.Request(f"http://{address}/v1/feedback", body)
    with urllib.request.urlopen(feedback) as answer:
        told["rewarded"] = json.load(answer)["arm"]
    try:
        urllib.request.urlopen(feedback)
    except urllib.error.HTTPError as error:
        told["again"] = error.code
        error.close()
    return told


if __name__ == "__main__":
    how, *where = sys.argv[1:]
    print(json.dumps({"grpc": over_grpc, "http": over_http}[how](*where)))  # noqa: T201  # its parent process reads it
