"""What does a request cost? CPU time of the server's processes, ours beside MLServer's, in one run.

Every server answers the same 102-byte V2 request with the same TorchScript MLP (20-64-64-1). The rounds are
interleaved, so that a noisy machine is noisy for all; the least of the rounds is shown, beside the median. What one
server adds to another is judged in each round by itself, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch

from benchmarks.h2load import load
from benchmarks.process import PYTHON, Server, free_port, server
from protos.messages import ModelInferRequest, ModelInferResponse
from protos.tensors import add_inputs, outputs_of
from protos.v2 import SERVICE

METHOD = SERVICE + "ModelInfer"
MESSAGE_BYTES = 102
PEER = "mlserver"
BOUNDS = {"runtime": 90.0, "router": 120.0}
"""CPU microseconds a request that we promise, the router's with its decisions, metrics and SQLite log."""
RUNTIME, FULL, FULL_ADDS = "runtime", "full", 60.0
"""The router with all that it can do for a request, and the microseconds that it may add to the runtime."""


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


def measure(rounds: int, requests: int) -> dict[str, dict[str, float]]:
    """CPU microseconds a request, requests a second and latency of each server, over interleaved rounds."""
    request = message()
    if len(request) != MESSAGE_BYTES:
        raise RuntimeError(f"the request has {len(request)} bytes, not {MESSAGE_BYTES}")
    cpu: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    alone: dict[str, list[float]] = {}
    with ExitStack() as stack:
        targets = []
        for start in (our_runtime, our_router, our_full_router, stock_mlserver):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            print(f"starting {start.__name__} ...", file=sys.stderr, flush=True)
            targets.append(stack.enter_context(start(folder)))
        for target in targets:
            check(target, request)
            load(target.address, METHOD, request, requests=requests // 8)
        for number in range(rounds):
            for target in targets:
                n = requests // 8 if target.name == PEER else requests
                before = target.process.cpu_seconds()
                seen = load(target.address, METHOD, request, requests=n)
                cpu.setdefault(target.name, []).append((target.process.cpu_seconds() - before) / n * 1e6)
                rates.setdefault(target.name, []).append(n / seen.seconds)
                single = load(target.address, METHOD, request, requests=n // 20, clients=1, streams=1)
                alone.setdefault(target.name, []).append(single.mean_seconds)
                print(f"round {number + 1}/{rounds} {target.name}: {cpu[target.name][-1]:.1f} us", file=sys.stderr)
    return {
        name: {
            "cpu_us": min(figures),
            "cpu_us_median": statistics.median(figures),
            "adds_us": statistics.median(ours - base for ours, base in zip(figures, cpu[RUNTIME], strict=True)),
            "requests_per_second": max(rates[name]),
            "one_at_a_time_ms": min(alone[name]) * 1e3,
        }
        for name, figures in cpu.items()
    }


def main() -> int:
    """Prints the table; returns 1 when one of ours costs more than promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    arguments = parser.parse_args()
    figures = measure(1, 8_000) if arguments.quick else measure(9, 16_000)
    if arguments.json:
        print(json.dumps(figures))
    else:
        print(
            f"{'server':<10}{'CPU us/request':>16}{'median':>9}{'adds':>8}{'of MLServer':>13}"
            f"{'requests/s':>12}{'alone':>10}  promised"
        )
        for name, row in figures.items():
            promised = f"<= {BOUNDS[name]:.0f} us" if name in BOUNDS else ""
            if name == FULL:
                promised = f"adds <= {FULL_ADDS:.0f} us"
            print(
                f"{name:<10}{row['cpu_us']:>16.1f}{row['cpu_us_median']:>9.1f}{row['adds_us']:>8.1f}"
                f"{row['cpu_us'] / figures[PEER]['cpu_us']:>12.2f}x{row['requests_per_second']:>12,.0f}"
                f"{row['one_at_a_time_ms']:>7.2f} ms  {promised}"
            )
        print(f"h2load -c4 -m8, {MESSAGE_BYTES}-byte request; alone: mean latency of one request at a time")
    return figures[FULL]["adds_us"] > FULL_ADDS or any(figures[name]["cpu_us"] > most for name, most in BOUNDS.items())


if __name__ == "__main__":
    sys.exit(main())
