"""Models for the tests: tiny TorchScript archives in repository folders, and a fake that needs no PyTorch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from runtime.formats import load
from runtime.model import NOTHING, Arrays, Model, Parameters, TensorSpec
from runtime.repository import Repository
from runtime.settings import FILE


def put(root: Path, folder_name: str, module: nn.Module | bytes | None = None, *, version="", **settings) -> Path:
    """Writes a model folder: the archive of a module, or bytes in its place, and its settings; returns the folder.

    What the settings leave out is that of `Mlp`.
    """
    folder: Path = root / folder_name / version
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(module, bytes):
        (folder / "model.pt").write_bytes(module)
    elif module is not None:
        save(module, folder / "model.pt")
    said = {
        "implementation": "runtime.TorchScriptModel",
        "inputs": [tensor("x", "FP32", -1, 4)],
        "outputs": [tensor("y", "FP32", -1, 1)],
        **settings,
    }
    (folder / FILE).write_text(json.dumps({key: value for key, value in said.items() if value is not None}))
    return folder


def load_from(root: Path, name: str = "m") -> Model:
    """Loads a model of a repository, as its settings say."""
    (found,) = Repository(root).find(name)
    assert found.settings, found.reason
    return load(found.settings, found.folder)


def tensor(name: str, datatype: str, *shape: int) -> dict:
    """A declared tensor, as a settings file has it."""
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def save(module: nn.Module, path: Path) -> None:
    """Scripts a module into an archive."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.jit.script(module.eval()).save(path)


class Mlp(nn.Module):
    """y = a network of x [n, 4] -> [n, 1]."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


MLP_BYTES = 4 * (4 * 8 + 8 + 8 + 1)  # of its weights


class Times(nn.Module):
    """y = factor * x, for a version that can be told from another."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Minus(nn.Module):
    """a - b: shows the order of the inputs."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


class Pair(NamedTuple):
    """Named outputs."""

    low: Tensor
    high: Tensor


class AsTuple(nn.Module):
    """Two outputs by order."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x - 1, x + 1


class AsDict(nn.Module):
    """Outputs by name, one of them not declared."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"high": x + 1, "low": x - 1, "more": x}


class AsPair(nn.Module):
    """Outputs by name, in a named tuple."""

    def forward(self, x: Tensor) -> Pair:
        return Pair(x - 1, x + 1)


class Both(nn.Module):
    """Two inputs, and two outputs by name."""

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"sum": a + b, "difference": a - b}


class InPlace(nn.Module):
    """Writes to what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(1)


class Centred(nn.Module):
    """A row's answer depends on the other rows."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0)


class Total(nn.Module):
    """One row, however many come in."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=0, keepdim=True)


class Choosy(nn.Module):
    """Fails when any element is above 1, which those of a warm-up never are."""

    def forward(self, x: Tensor) -> Tensor:
        if bool((x > 1).any()):
            raise ValueError("too large")
        return x * 2


class Slow(nn.Module):
    """y = x after `x` times a millisecond or so of work, and never quick."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(256))

    def forward(self, x: Tensor) -> Tensor:
        work: Tensor = self.weight
        for _ in range(2 + int(x.max())):
            work = work @ self.weight
        return x * work[0, 0]


class Fake:
    """y = 2 * x + 1. Keeps the batches that it ran; fails when any element is negative."""

    def __init__(self, name: str = "fake", version: str = "", shape: tuple[int, ...] = (-1, -1)) -> None:
        self.name = name
        self.version = version
        self.platform = "fake"
        self.memory = 1000
        self.reads_parameters = False
        self.inputs = (TensorSpec("x", "FP64", shape),)
        self.outputs = (TensorSpec("y", "FP64", shape),)
        self.batches: list[np.ndarray] = []
        self.closed = 0

    def run(self, arrays: Arrays, parameters: Parameters = NOTHING) -> Arrays:
        self.batches.append(arrays["x"])
        if (arrays["x"] < 0).any():
            raise ValueError("negative")
        return {"y": 2 * arrays["x"] + 1}

    def close(self) -> None:
        self.closed += 1


BLOCKS = """
import threading
from concurrent.futures import ThreadPoolExecutor

class Model:
    def load(self, folder, when="predict"):
        self.when = when
        self.block("load")
        ThreadPoolExecutor(1).submit(self.block, "beside")

    def predict(self, inputs):
        if inputs["x"].max() > 90:
            self.block("predict")
        return {"y": inputs["x"]}

    def close(self):
        self.block("close")

    def block(self, when):
        if when == self.when:
            print("it blocks", flush=True)
            threading.Event().wait()
"""
