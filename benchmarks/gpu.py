"""What a GPU answers through a model of ours, beside the bare module in a loop, by rows in a batch.

The bare module takes and returns arrays of NumPy, as a model does: `.to("cuda")`, the module, `.cpu()`, in inference
mode. Ours is `Model.run` of the same archive, once through pinned memory alone and once with CUDA graphs; no server and
no batcher is in between. The rounds are interleaved, and of each the best is shown.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.formats import load
from runtime.repository import Repository
from runtime.warmup import warm_up

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ROUNDS = 5
FEATURES = 32

Run = Callable[[NDArray[Any]], object]


def network() -> torch.nn.Module:
    """A network of [n, 32] -> [n, 1] in five layers: short kernels, as those of tabular models are."""
    torch.manual_seed(0)
    sizes = (FEATURES, 256, 256, 256, 256)
    layers: list[torch.nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], 1)).eval()


def contenders(root: Path, device: str) -> dict[str, Run]:
    """The bare module, ours, and ours with graphs where the device has them, warmed up."""
    archive = root / "model.pt"
    torch.jit.script(network()).save(archive)  # type: ignore[no-untyped-call]
    module = torch.jit.freeze(torch.jit.load(archive, map_location=device))  # type: ignore[no-untyped-call]

    def bare(x: NDArray[Any]) -> object:
        with torch.inference_mode():
            return module(torch.from_numpy(x).to(device)).cpu().numpy()

    runs: dict[str, Run] = {"bare": bare}
    for name, graphs in {"ours": False, "with graphs": True}.items():
        if graphs and device == "cpu":
            continue
        folder = root / name
        folder.mkdir()
        (folder / "model-settings.json").write_text(json.dumps(settings(device, graphs=graphs)))
        (found,) = Repository(root).find(name)
        if found.settings is None:
            raise RuntimeError(found.reason)
        model = load(found.settings, found.folder)
        warm_up(model, max_rows=ROWS[-1])
        runs[name] = lambda x, model=model: model.run({"input": x})  # type: ignore[misc]
    return runs


def settings(device: str, *, graphs: bool) -> dict[str, Any]:
    """Of a model folder whose archive lies beside it."""
    return {
        "implementation": "runtime.TorchScriptModel",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, FEATURES]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
        "max_batch_size": ROWS[-1],
        "parameters": {"uri": "../model.pt", "extra": {"device": device, "cuda_graphs": graphs}},
    }


def rate(run: Run, x: NDArray[Any], seconds: float) -> float:
    """Rows a second in a loop of so many seconds."""
    runs, started = 0, perf_counter()
    while (passed := perf_counter() - started) < seconds:
        run(x)
        runs += 1
    return runs * len(x) / passed


def measure(runs: dict[str, Run], rows: int, seconds: float) -> dict[str, float]:
    """The best rate of each contender."""
    x = np.random.default_rng(0).random((rows, FEATURES), np.float32)
    for run in runs.values():
        rate(run, x, seconds / 5)
    rounds = [{name: rate(run, x, seconds) for name, run in runs.items()} for _ in range(ROUNDS)]
    return {name: max(each[name] for each in rounds) for name in runs}


def main() -> int:
    """Prints rows a second and their ratio to the bare module's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each loop")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to see the program work")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print("there is no GPU")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        runs = contenders(Path(folder), arguments.device)
        if arguments.device != "cpu":
            print(torch.cuda.get_device_name(arguments.device), "PyTorch", torch.__version__)
        others = [name for name in runs if name != "bare"]
        print(f"{'rows':>5} {'bare rows/s':>12}" + "".join(f" {name:>12} {'ratio':>6}" for name in others))
        for rows in ROWS:
            rates = measure(runs, rows, arguments.seconds)
            ratios = "".join(f" {rates[name]:12,.0f} {rates[name] / rates['bare']:6.2f}" for name in others)
            print(f"{rows:5} {rates['bare']:12,.0f}{ratios}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
