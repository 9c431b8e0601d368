"""Our formats under a stock MLServer, as a real process that gRPC and REST clients ask."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import httpx
import numpy as np
import pytest

from protos.messages import ModelInferRequest, ModelInferResponse
from protos.tensors import add_inputs, outputs_of
from protos.v2 import SERVICE
from tests import plain_http
from tests.process import ROOT, Process, until
from tests.runtime.models import Mlp, Times, put, tensor

pytest.importorskip("mlserver")

TIMES = {"inputs": [tensor("x", "FP32", -1, 2)], "outputs": [tensor("y", "FP32", -1, 2)]}

NEIGHBOUR = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Echo(MLModel):
    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", x)])
"""


class Stock(Process):
    """`mlserver start MODELS`."""

    def __init__(self, models, folder, **settings):
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            self.http, self.grpc, metrics = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
        ports = {
            f"{protocol}_port": int(address.rpartition(":")[2])
            for protocol, address in (("http", self.http), ("grpc", self.grpc), ("metrics", metrics))
        }
        told = {"debug": False, "host": "127.0.0.1", "metrics_dir": str(folder), **ports, **settings}
        (models / "settings.json").write_text(json.dumps(told))
        super().__init__("mlserver.cli.main", "start", models, folder=folder)


def written(models):
    """Models of ours, and a neighbour whose module has our name."""
    put(models, "times", Times(2), name="times", **TIMES)
    put(models, "batched", Times(3), name="batched", max_batch_size=8, max_batch_time=0.02, **TIMES)
    put(models, "mlp", Mlp(), name="mlp", platform="mine")
    (models / "echo").mkdir()
    (models / "echo" / "runtime.py").write_text(NEIGHBOUR)
    (models / "echo" / "model-settings.json").write_text('{"name": "echo", "implementation": "runtime.Echo"}')
    # Its workers count on an event loop that uvloop makes no more since 0.22; where there is none, they use asyncio's.
    (models / "uvloop.py").write_text("raise ImportError")
    return models


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """One without parallel workers and one with one; they start side by side."""
    with ExitStack() as stack:
        started = []
        for workers in (0, 1):
            folder = tmp_path_factory.mktemp("stock")
            started.append(
                stack.enter_context(Stock(written(folder / "models"), folder / "said", parallel_workers=workers))
            )
        yield started


@pytest.fixture(scope="module", params=[0, 1], ids=["in process", "parallel worker"])
def server(request, servers):
    server = servers[request.param]
    with httpx.Client(base_url=f"http://{server.http}") as client:
        until(lambda: ready(client) or "rror" in server.complained + server.printed)
        assert ready(client), server.complained + server.printed
    return server


def ready(client):
    try:
        return client.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def infer(channel, name, x, *, raw=True):
    request = ModelInferRequest(model_name=name, id="r-1")
    add_inputs(request, {"x": np.array(x, np.float32)}, raw=raw)
    call = channel.unary_unary(SERVICE + "ModelInfer")
    return ModelInferResponse.FromString(call(request.SerializeToString(), timeout=60))


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize(("name", "factor"), [("times", 2), ("batched", 3)])
def test_what_is_not_a_number_goes_in_and_out_by_grpc(channel, name, factor, raw):
    x = np.array([[1, math.nan], [-math.inf, 4]], np.float32)
    response = infer(channel, name, x, raw=raw)
    assert (response.model_name, response.id) == (name, "r-1")
    np.testing.assert_array_equal(outputs_of(response)["y"], factor * x)


def test_rest_is_answered_and_null_is_nan(server):
    x = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, None], [3, 4]]}
    answered = plain_http.post(f"http://{server.http}/v2/models/times/infer", json={"inputs": [x]})
    (y,) = answered.raise_for_status().json()["outputs"]
    assert (y["name"], y["datatype"], y["shape"], y["data"]) == ("y", "FP32", [2, 2], [2, None, 6, 8])


def test_many_callers_in_mlservers_batches_each_get_their_own_rows(channel):
    def ask(i):
        x = np.full((1 + i % 3, 2), i, np.float32)
        np.testing.assert_array_equal(outputs_of(infer(channel, "batched", x))["y"], 3 * x)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(ask, range(200)))


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        ({"shape": [1, 3], "data": [1, 2, 3]}, "input 'x' is declared FP32 [-1, 2]; the request has FP32 [1, 3]"),
        ({"shape": [1, 2], "data": [1, 2, 3]}, "input 'x': shape [1, 2] does not hold 3 elements"),
        ({"shape": [2**63, 2], "data": [1, 2]}, "input 'x': shape [9223372036854775808, 2] does not hold 2 elements"),
        ({"data": [1, "2.5"]}, "input 'x': its data are not the values of one FP32 tensor"),
        (
            {"data": [1, 1e300]},
            "input 'x': its data are not the values of one FP32 tensor, which are the numbers from ",
        ),
        ({"data": [1, True]}, "input 'x': its data are not the values of one FP32 tensor"),
        (
            {"datatype": "INT8", "data": [1, 1000]},
            "input 'x': its data are not the values of one INT8 tensor, which are the integers from -128 to 127",
        ),
        ({"datatype": "INT8", "data": [1, 1.5]}, "input 'x': its data are not the values of one INT8 tensor"),
        ({"name": "z", "data": [1, 2]}, "input 'x' is missing; input 'z' is unexpected; the model takes 'x'"),
    ],
)
def test_what_is_wrong_is_said(server, tensor, says):
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2], **tensor}
    refused = plain_http.post(f"http://{server.http}/v2/models/times/infer", json={"inputs": [x]})
    assert refused.status_code == 400
    assert says in refused.json()["error"]


def test_grpc_says_whose_fault_it_is(channel):
    with pytest.raises(grpc.RpcError) as refused:
        infer(channel, "times", [[1, 2, 3]])
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_neighbouring_runtime_py_is_served_beside_it(channel):
    for _ in range(2):
        assert outputs_of(infer(channel, "echo", [[5, 6]]))["y"].tolist() == [[5, 6]]
        assert outputs_of(infer(channel, "times", [[5, 6]]))["y"].tolist() == [[10, 12]]


def test_the_platform_is_told(server):
    with httpx.Client(base_url=f"http://{server.http}") as client:
        assert client.get("/v2/models/times").json()["platform"] == "pytorch_torchscript"
        assert client.get("/v2/models/mlp").json()["platform"] == "mine"


def test_models_are_unloaded_and_loaded_again(server, channel):
    with httpx.Client(base_url=f"http://{server.http}", timeout=60) as client:
        for _ in range(2):
            client.post("/v2/repository/models/mlp/load").raise_for_status()
            assert outputs_of(infer(channel, "mlp", [[1, 2, 3, 4]]))["y"].shape == (1, 1)
        client.post("/v2/repository/models/mlp/unload").raise_for_status()
        with pytest.raises(grpc.RpcError) as unknown:
            infer(channel, "mlp", [[1, 2, 3, 4]])
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_environment_tells_what_the_file_leaves_out(tmp_path, monkeypatch):
    from mlserver.repository.load import load_model_settings

    monkeypatch.setenv("MLSERVER_MODEL_IMPLEMENTATION", "runtime.TorchScriptModel")
    settings = load_model_settings(str(put(tmp_path, "m", Mlp(), implementation=None) / "model-settings.json"))
    assert asyncio.run(settings.implementation(settings).load())


def test_importing_the_package_imports_neither_mlserver_nor_torch():
    code = "import runtime, sys; print({'mlserver', 'torch'} & set(sys.modules)); runtime.NoModel"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert ran.stdout == "set()\n"
    assert "module 'runtime' has no attribute 'NoModel'" in ran.stderr


def test_the_class_is_the_same_however_often_the_module_is_reloaded():
    code = """
import importlib, runtime
first = runtime.TorchScriptModel
importlib.reload(runtime)
print(first is runtime.TorchScriptModel)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert ran.stdout == "True\n"
