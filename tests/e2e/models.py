"""Tiny TorchScript models in folders of MLServer's form. Each multiplies, so that an answer tells whose it is."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FACTORS = {"double": 2.0, "triple": 3.0}
X = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
Y = {"name": "y", "datatype": "FP32", "shape": [-1, 2]}
N = {"name": "n", "datatype": "INT64", "shape": [-1, 1]}
PATIENCE = 2.0  # seconds that the patient model waits for company: calls in flight that cost nothing


class Times(nn.Module):
    """y = factor x."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Product(nn.Module):
    """y = n x."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        return x * n


def write_models(root: Path) -> None:
    """Writes every model; `broken` is not one."""
    for name, factor in FACTORS.items():
        write_model(root / name, Times(factor))
    write_model(root / "patient", Times(1.0), settings={"max_batch_time": PATIENCE, "max_batch_size": 1000})
    write_model(root / "wide", Times(1.0), inputs=[{**X, "shape": [-1, 3]}], outputs=[{**Y, "shape": [-1, 3]}])
    write_model(root / "product", Product(), inputs=[X, N])
    write_model(root / "broken", Times(1.0))
    (root / "broken" / "model.pt").write_bytes(b"neither a zip file nor a pickle")


def write_model(
    folder: Path,
    model: nn.Module,
    *,
    inputs: list[dict[str, Any]] | None = None,
    outputs: list[dict[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Writes one folder; without specs the model takes `x` and gives `y`, rows of two."""
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        torch.jit.script(model).save(str(folder / "model.pt"))
    told = {
        "name": folder.name,
        "implementation": "runtime.TorchScriptModel",
        "parameters": {"uri": "./model.pt"},
        "inputs": inputs or [X],
        "outputs": outputs or [Y],
        **(settings or {}),
    }
    (folder / "model-settings.json").write_text(json.dumps(told), "utf-8")
