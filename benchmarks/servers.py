"""Three servers with the same TorchScript models: ours, MLServer, and Triton with its Python backend."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from benchmarks import triton
from benchmarks.process import PYTHON, Target, free_port, server
from tests.runtime.models import save

OURS, MLSERVER, TRITON = "runtime", "mlserver", "triton"


class Lstm(torch.nn.Module):
    """y [n, 1] of n windows of ten days and 33 features."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(33, 64, batch_first=True)
        self.head = torch.nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.lstm(x)[0][:, -1])
        return y


class Mean(torch.nn.Module):
    """y [n, 1] = the mean of each row: nearly all of its cost is the request's size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=1, keepdim=True)


def _mlp() -> torch.nn.Module:
    layers = [torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(64, 1))


MODELS: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, ...]]] = {
    "mlp": (_mlp, (20,)),
    "lstm": (Lstm, (10, 33)),
    "mean": (Mean, (262_144,)),
}
"""Each model, and the shape of one of its rows."""


NAMES = tuple(MODELS)


def _archives(folder: Path, names: Sequence[str] = NAMES) -> dict[str, Path]:
    torch.manual_seed(0)
    folder.mkdir()
    archives = {name: folder / f"{name}.pt" for name in names}
    for name, archive in archives.items():
        save(MODELS[name][0](), archive)
    return archives


def write_models(folder: Path, names: Sequence[str], implementation: str = "runtime.TorchScriptModel") -> Path:
    """Writes models under `folder`; returns the folder of models, as our servers and MLServer read it."""
    for name, archive in _archives(folder / "archives", names).items():
        settings = {
            "name": name,
            "implementation": implementation,
            "parameters": {"uri": str(archive)},
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, *MODELS[name][1]]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
        }
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "model-settings.json").write_text(json.dumps(settings))
    return folder / "models"


@contextmanager
def our_runtime(folder: Path, names: Sequence[str] = NAMES, python: Sequence[str] = PYTHON) -> Iterator[Target]:
    """`croupier runtime`."""
    command = [*python, "-m", "runtime", str(write_models(folder, names)), "--port", "0"]
    with server(command, folder / "log", folder=folder) as process:
        yield Target(OURS, process.wait_for(r"^serving .* on (127\.0\.0\.1:\d+)")[1], process)


_MLSERVER_RUNTIME = """
import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

torch.set_num_threads(1)


class Net(MLModel):
    async def load(self):
        self.net = torch.jit.freeze(torch.jit.load(self.settings.parameters.uri).eval())
        return True

    async def predict(self, payload):
        x = torch.from_numpy(NumpyCodec.decode_input(payload.inputs[0]))
        with torch.inference_mode():
            y = self.net(x).numpy()
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])
"""


@contextmanager
def mlserver(folder: Path, names: Sequence[str] = NAMES) -> Iterator[Target]:
    """MLServer with a plain custom runtime, without worker processes: its cheapest way."""
    home, port = write_models(folder, names, "runtime_net.Net"), free_port()
    for name in names:
        (home / name / "runtime_net.py").write_text(_MLSERVER_RUNTIME)
    settings = {"debug": False, "parallel_workers": 0, "host": "127.0.0.1", "grpc_port": port}
    settings |= {"http_port": free_port(), "metrics_port": free_port()}
    (home / "settings.json").write_text(json.dumps(settings))
    with server([sys.executable, "-m", "mlserver.cli.main", "start", "."], folder / "log", folder=home) as process:
        for name in names:
            process.wait_for(f"Loaded model '{name}' successfully")
        yield Target(MLSERVER, f"127.0.0.1:{port}", process)


@contextmanager
def triton_server(folder: Path) -> Iterator[Target]:
    """Triton with its Python backend and dynamic batching."""
    for name, archive in _archives(folder / "archives").items():
        triton.write_model(folder / "models", name, archive, MODELS[name][1], [1])
    with triton.triton(folder / "models", folder / "log") as (process, address):
        yield Target(TRITON, address, process)


SERVERS: dict[str, Callable[[Path], AbstractContextManager[Target]]] = {
    OURS: our_runtime,
    MLSERVER: mlserver,
    TRITON: triton_server,
}
