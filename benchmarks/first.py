"""What do the first callers of a model wait for, with its warm-up and without? CPU time, a new process each.

The calls have 1 to 64 rows, as the batches of many callers do. PyTorch compiles a script at its first run, and prepares
recurrent layers for each number of rows that they meet: without a warm-up, while callers wait.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.servers import MODELS
from runtime import formats
from runtime.prepare import prepare
from runtime.repository import Repository
from tests.runtime.models import put, tensor

NAMES = ("mlp", "lstm")
CALLS = 1000
ROWS = 64
ROUNDS = 3
SECONDS = 120  # that one process may take
COLD, WARM = "cold", "warm"


@dataclass(frozen=True)
class First:
    """Milliseconds of the first calls."""

    first: float
    p50: float
    p999: float


def write(folder: Path) -> None:
    """The models as a repository."""
    for name in NAMES:
        module, shape = MODELS[name]
        put(folder, name, module(), inputs=[tensor("x", "FP32", -1, *shape)], max_batch_size=ROWS)


def run(folder: Path, name: str, state: str) -> First:
    """Loads a model and runs it. In a process that has run nothing else."""
    (found,) = Repository(folder).find(name)
    if found.settings is None:
        raise RuntimeError(found.reason)
    warm = state == WARM
    load = formats.load
    model = prepare(load, found.settings, found.folder).model if warm else load(found.settings, found.folder)
    rng = np.random.default_rng(0)
    seen = []
    for rows in rng.integers(1, ROWS + 1, CALLS):
        x = rng.random((rows, *MODELS[name][1]), np.float32)
        started = time.thread_time()
        model.run({"x": x})
        seen.append((time.thread_time() - started) * 1e3)
    return First(seen[0], *np.percentile(seen, [50, 99.9]))


def measure(rounds: int = ROUNDS) -> dict[str, dict[str, First]]:
    """The least of each figure over some rounds, by model and by whether it was warmed up."""
    best: dict[str, dict[str, First]] = {name: {} for name in NAMES}
    with TemporaryDirectory() as folder:
        write(Path(folder))
        for _ in range(rounds):
            for name in NAMES:
                for state in (COLD, WARM):
                    command = [sys.executable, "-m", __name__, folder, name, state]
                    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout
                    seen = json.loads(told)
                    before = asdict(best[name].get(state, First(**seen)))
                    best[name][state] = First(**{key: min(value, before[key]) for key, value in seen.items()})
    return best


def table(figures: Mapping[str, Mapping[str, First]]) -> str:
    """A line for each model, before its warm-up and after."""
    lines = [f"{'first calls':<14}{'':>10}{'first ms':>10}{'p50 ms':>9}{'p99.9 ms':>10}"]
    for name, states in figures.items():
        for state, each in states.items():
            lines.append(f"{name:<14}{state:>10}{each.first:>10.2f}{each.p50:>9.2f}{each.p999:>10.2f}")
    return "\n".join([*lines, f"{CALLS:,} calls of 1 to {ROWS} rows in a new process, CPU time of each run"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("state", choices=(COLD, WARM))
    print(json.dumps(asdict(run(**vars(parser.parse_args())))))
