"""Servers that answer one request, of 102 bytes, with one TorchScript MLP (20-64-64-1): ours, and a stock MLServer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks import servers
from benchmarks.process import PYTHON, Target, server
from protos.messages import ModelInferRequest, ModelInferResponse
from protos.tensors import add_inputs, outputs_of
from protos.v2 import SERVICE

METHOD = SERVICE + "ModelInfer"
MESSAGE_BYTES = 102
FULL = "full"
_MLP = "mlp"


def message() -> bytes:
    """The request: one FP32 tensor of shape [1, 20] in raw form."""
    request = ModelInferRequest(model_name=_MLP)
    add_inputs(request, {"x": np.linspace(-1.0, 1.0, 20, dtype=np.float32)[None]}, raw=True)
    return request.SerializeToString()


def our_runtime(folder: Path, python: Sequence[str] = PYTHON) -> AbstractContextManager[Target]:
    """`croupier runtime`."""
    return servers.our_runtime(folder, [_MLP], python)


def stock_mlserver(folder: Path) -> AbstractContextManager[Target]:
    """MLServer's cheapest way."""
    return servers.mlserver(folder, [_MLP])


@contextmanager
def our_router(folder: Path, python: Sequence[str] = PYTHON) -> Iterator[Target]:
    """`croupier serve`: a bandit over three arms in process, SQLite, metrics."""
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
    models = servers.write_models(folder, [_MLP])
    (folder / "croupier.yaml").write_text(f"""\
listen: 127.0.0.1:0
admin: 127.0.0.1:0
linger_seconds: 0
models: {models}
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


def check(target: Target, request: bytes) -> None:
    """Raises unless the server gives the model's answer."""
    with grpc.insecure_channel(target.address) as channel:
        grpc.channel_ready_future(channel).result(20)
        infer: Any = channel.unary_unary(METHOD)
        response = ModelInferResponse.FromString(infer(request, timeout=10))
    (output,) = outputs_of(response).values()
    if output.shape != (1, 1) or not np.isfinite(output).all():
        raise RuntimeError(f"{target.name} answered {output!r}")
