"""Tiny models in folders of MLServer's form. Each multiplies, so that an answer tells whose it is.

Those that many servers have are ONNX files: a process that loads no PyTorch starts in half the time.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

FACTORS = {"double": 2.0, "triple": 3.0}
X = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
Y = {"name": "y", "datatype": "FP32", "shape": [-1, 2]}
N = {"name": "n", "datatype": "INT64", "shape": [-1, 1]}
PATIENCE = 2.0  # seconds that the patient model waits for company: calls in flight that cost nothing


class Product(nn.Module):
    """y = n x."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        return x * n


def write_models(root: Path) -> None:
    """Writes every model; `broken` is not one. `product` is TorchScript, so that a server has models of both kinds."""
    for name, factor in FACTORS.items():
        write_times(root / name, factor)
    write_times(root / "patient", 1.0, settings={"max_batch_time": PATIENCE, "max_batch_size": 1000})
    write_times(root / "wide", 1.0, columns=3)
    write_model(root / "product", Product(), inputs=[X, N])
    write_model(root / "broken", Product())
    (root / "broken" / "model.pt").write_bytes(b"neither a zip file nor a pickle")


def write_times(folder: Path, factor: float, *, columns: int = 2, settings: Mapping[str, Any] | None = None) -> None:
    """Writes one folder: y = factor x, an ONNX file for rows of so many columns."""
    folder.mkdir(parents=True)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", columns]) for name in "xy")
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "factor"], ["y"])], folder.name, [x], [y], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    inputs, outputs = ([{**each, "shape": [-1, columns]}] for each in (X, Y))
    _write_settings(folder, "runtime.OnnxModel", "model.onnx", inputs, outputs, **settings or {})


def write_model(
    folder: Path,
    model: nn.Module,
    *,
    inputs: list[dict[str, Any]] | None = None,
    outputs: list[dict[str, Any]] | None = None,
) -> None:
    """Writes one folder of TorchScript; without specs the model takes `x` and gives `y`, rows of two."""
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        torch.jit.script(model).save(str(folder / "model.pt"))
    _write_settings(folder, "runtime.TorchScriptModel", "model.pt", inputs or [X], outputs or [Y])


def _write_settings(folder: Path, implementation: str, file: str, inputs: Any, outputs: Any, **more: Any) -> None:
    told = {
        "name": folder.name,
        "implementation": implementation,
        "parameters": {"uri": f"./{file}"},
        "inputs": inputs,
        "outputs": outputs,
        **more,
    }
    (folder / "model-settings.json").write_text(json.dumps(told), "utf-8")
