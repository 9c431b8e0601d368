"""A trained model as a folder that serves it, `<out>/<name>/`, and back."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from runtime import export as folders
from runtime.finance.features import NAMES, WINDOW
from runtime.settings import FILE

SETTINGS_FILE = FILE
WEIGHTS_FILE = "model.pt"


def export(model: nn.Module, out: Path, name: str) -> None:
    """Writes the folder `<out>/<name>`: raw windows in, one probability a row out."""
    windows = torch.randn(2, WINDOW, len(NAMES), generator=torch.Generator().manual_seed(0))
    folders.export(model, {"features": windows}, out / name, outputs=["probability"], formats=["pt"])


class Exported:
    """The model of the folder `<out>/<name>`, as a server would load it."""

    def __init__(self, out: Path, name: str) -> None:
        with warnings.catch_warnings():
            # PyTorch deprecates TorchScript; it is what is served, and the warning stays on for everything else.
            warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
            self._model = torch.jit.load(out / name / WEIGHTS_FILE, map_location="cpu").eval()  # type: ignore[no-untyped-call]

    def __call__(self, features: Tensor) -> Tensor:
        """Probability [n, 1] of raw windows [n, WINDOW, features]."""
        with torch.inference_mode():
            probability: Tensor = self._model(features)
        return probability
