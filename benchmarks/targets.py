"""Servers that answer one request, of 102 bytes, with one TorchScript MLP (20-64-64-1): ours, and a stock MLServer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch

from benchmarks.process import PYTHON, Server, free_port, server
from protos.messages import ModelInferRequest, ModelInferResponse
from protos.tensors import add_inputs, outputs_of
from protos.v2 import SERVICE

METHOD = SERVICE + "ModelInfer"
MESSAGE_BYTES = 102
PEER = "mlserver"
RUNTIME, FULL = "runtime", "full"


@dataclass(frozen=True)
class Target:
    """A server that answers requests for the model or route "mlp"."""

    name: str
    address: str
    process: Server


def message() -> bytes:
    """The request: one FP32 tensor of shape [1, 20] in raw form."""
    request = ModelInferRequest(model_name="mlp")
    add_inputs(request, {"x": np.linspace(-1.0, 1.0, 20, dtype=np.float32)[None]}, raw=True)
    return request.SerializeToString()


def write_model(folder: Path) -> None:
    """The MLP as a model folder that both our runtime and the MLServer runtime below read."""
    torch.manual_seed(0)
    layers = [
        torch.nn.Linear(20, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 1),
    ]
    home = folder / "mlp"
    home.mkdir(parents=True)
    torch.jit.save(torch.jit.script(torch.nn.Sequential(*layers)), home / "model.pt")
    settings = {
        "name": "mlp",
        "implementation": "runtime.TorchScriptModel",
        "parameters": {"uri": "./model.pt"},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 20]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    }
    (home / "model-settings.json").write_text(json.dumps(settings))


@contextmanager
def our_runtime(folder: Path, python: Sequence[str] = PYTHON) -> Iterator[Target]:
    """`croupier runtime`."""
    write_model(folder / "models")
    command = [*python, "-m", "runtime", "models", "--port", "0"]
    with server(command, folder / "log", folder=folder) as process:
        address = process.wait_for(r"^serving .* on (127\.0\.0\.1:\d+)")[1]
        yield Target(RUNTIME, address, process)


@contextmanager
def our_router(folder: Path, python: Sequence[str] = PYTHON) -> Iterator[Target]:
    """`croupier serve`: a bandit over two arms in process, SQLite, metrics."""
    with _router("router", folder, python, "policy: {kind: thompson}") as target:
        yield target


@contextmanager
def our_full_router(folder: Path, python: Sequence[str] = PYTHON) -> Iterator[Target]:
    """The same with a contextual policy that reads five columns, a shadow of 1 % and traces of 1 % of the requests."""
    columns = ", ".join(f"x{n}: {{tensor: x, column: {n}}}" for n in range(5))
    route = f"""policy: {{kind: linear_thompson}}
    context: {{{columns}}}
    shadows: {{c: {{percent: 1}}}}"""
    with _collector() as collector:
        tracing = f"tracing: {{collector: '{collector}'}}"
        with _router(FULL, folder, python, route, tracing) as target:
            yield target


@contextmanager
def _router(name: str, folder: Path, python: Sequence[str], route: str, more: str = "") -> Iterator[Target]:
    write_model(folder / "models")
    (folder / "croupier.yaml").write_text(f"""\
listen: 127.0.0.1:0
admin: 127.0.0.1:0
linger_seconds: 0
models: models
store: sqlite:croupier.db
{more}
routes:
  mlp:
    arms: {{a: {{model: mlp}}, b: {{model: mlp}}, c: {{model: mlp}}}}
    {route}
""")
    command = [*python, "-m", "router", "serve", "croupier.yaml"]
    with server(command, folder / "log", folder=folder) as process:
        address = process.wait_for(r"^serving .* on (127\.0\.0\.1:\d+)")[1]
        yield Target(name, address, process)


@contextmanager
def _collector() -> Iterator[str]:
    """Where traces may go: an OTLP collector that forgets them."""
    export = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    collector = grpc.server(ThreadPoolExecutor(1))
    collector.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
    address = f"127.0.0.1:{collector.add_insecure_port('127.0.0.1:0')}"
    collector.start()
    try:
        yield address
    finally:
        collector.stop(None).wait()


_MLSERVER_RUNTIME = """
import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

torch.set_num_threads(1)


class Mlp(MLModel):
    async def load(self):
        self.net = torch.jit.freeze(torch.jit.load("model.pt").eval())
        return True

    async def predict(self, payload):
        x = torch.from_numpy(NumpyCodec.decode_input(payload.inputs[0]))
        with torch.inference_mode():
            y = self.net(x).numpy()
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])
"""


@contextmanager
def stock_mlserver(folder: Path) -> Iterator[Target]:
    """MLServer with a plain custom runtime, without worker processes: its cheapest way."""
    write_model(folder)
    home, port = folder / "mlp", free_port()
    (home / "runtime_mlp.py").write_text(_MLSERVER_RUNTIME)
    (home / "model-settings.json").write_text(json.dumps({"name": "mlp", "implementation": "runtime_mlp.Mlp"}))
    settings = {"debug": False, "parallel_workers": 0, "host": "127.0.0.1"}
    settings |= {"grpc_port": port, "http_port": free_port(), "metrics_port": free_port()}
    (home / "settings.json").write_text(json.dumps(settings))
    with server([sys.executable, "-m", "mlserver.cli.main", "start", "."], folder / "log", folder=home) as process:
        process.wait_for("Loaded model 'mlp' successfully")
        yield Target(PEER, f"127.0.0.1:{port}", process)


def check(target: Target, request: bytes) -> None:
    """Raises unless the server gives the model's answer."""
    with grpc.insecure_channel(target.address) as channel:
        grpc.channel_ready_future(channel).result(20)
        infer: Any = channel.unary_unary(METHOD)
        response = ModelInferResponse.FromString(infer(request, timeout=10))
    (output,) = outputs_of(response).values()
    if output.shape != (1, 1) or not np.isfinite(output).all():
        raise RuntimeError(f"{target.name} answered {output!r}")
