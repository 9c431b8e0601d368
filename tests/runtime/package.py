"""`python -m tests.runtime.package FOLDER` compiles `Both` into a model folder. It takes a C++ compiler ten seconds."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from runtime.export import export
from tests.runtime.models import Both

X = torch.linspace(-1, 1, 8).reshape(2, 4)
PAIR = {"a": X, "b": X.clone()}  # two tensors, or PyTorch would export one input

if __name__ == "__main__":
    export(Both(), PAIR, Path(sys.argv[1]), formats=["aoti"])
