"""A trained model as a folder in MLServer's form, `<out>/<name>/{model-settings.json, model.pt}`, and back."""

# PyTorch leaves torch.jit untyped.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from runtime.finance.features import NAMES, WINDOW

SETTINGS_FILE = "model-settings.json"
WEIGHTS_FILE = "model.pt"


def settings(name: str) -> dict[str, object]:
    """What `model-settings.json` says of the model `name`: raw windows in, one probability a row out."""
    return {
        "name": name,
        "implementation": "runtime.TorchScriptModel",
        "platform": "pytorch_torchscript",
        "parameters": {"uri": f"./{WEIGHTS_FILE}", "version": "1"},
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, WINDOW, len(NAMES)]}],
        "outputs": [{"name": "probability", "datatype": "FP32", "shape": [-1, 1]}],
    }


def export(model: nn.Module, out: Path, name: str) -> None:
    """Writes the folder `<out>/<name>`. A file is replaced whole, so a server never loads half of one."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{WEIGHTS_FILE}.partial"
    with _torchscript():
        torch.jit.script(model.eval()).save(partial)
    partial.replace(folder / WEIGHTS_FILE)
    partial = folder / f"{SETTINGS_FILE}.partial"
    partial.write_text(json.dumps(settings(name), indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / SETTINGS_FILE)


class Exported:
    """The model of the folder `<out>/<name>`, as a server would load it."""

    def __init__(self, out: Path, name: str) -> None:
        with _torchscript():
            self._model = torch.jit.load(out / name / WEIGHTS_FILE, map_location="cpu").eval()

    def __call__(self, features: Tensor) -> Tensor:
        """Probability [n, 1] of raw windows [n, WINDOW, features]."""
        with torch.inference_mode():
            probability: Tensor = self._model(features)
        return probability


@contextmanager
def _torchscript() -> Iterator[None]:
    # PyTorch deprecates TorchScript in favour of torch.export. The .pt file is what MLServer, Triton and libtorch read
    # today, so this is on purpose here, and the warning stays on for everything else.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        yield
