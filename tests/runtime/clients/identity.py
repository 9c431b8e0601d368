"""A runtime whose models answer with their own inputs: one for each datatype, and one of several tensors.

python -m tests.runtime.clients.identity FOLDER: serves until it is stopped; the folder gets the models' settings.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from protos.serve import Listener, serve
from protos.tensors import DATATYPES
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.model import NOTHING, Arrays, Parameters
from runtime.repository import Repository
from runtime.server import RuntimeService, application
from runtime.settings import ModelSettings
from tests.process import ANY_PORT
from tests.runtime.models import put, tensor


class Identity:
    """Every output is the input in its place."""

    platform = "identity"
    memory = 0
    reads_parameters = False

    def __init__(self, settings: ModelSettings, _folder: Path) -> None:
        self.name = settings.name
        self.version = settings.version
        self.inputs = settings.inputs
        self.outputs = settings.outputs

    def run(self, arrays: Arrays, parameters: Parameters = NOTHING) -> Arrays:
        return {there.name: arrays[here.name] for here, there in zip(self.inputs, self.outputs, strict=True)}

    def close(self) -> None:
        pass


def write_settings(folder: Path) -> None:
    """A model called after each datatype, from `x` to `y`; "row", of a fixed width; and "pair", of two datatypes."""
    for datatype in DATATYPES:
        model(folder, datatype.lower(), [tensor("x", datatype, -1, -1)], [tensor("y", datatype, -1, -1)])
    model(folder, "row", [tensor("x", "FP32", -1, 4)], [tensor("y", "FP32", -1, 4)])
    pair = [("n", "FP64"), ("s", "BYTES")]
    model(
        folder,
        "pair",
        [tensor(name, datatype, -1, -1) for name, datatype in pair],
        [tensor(f"{name}_out", datatype, -1, -1) for name, datatype in pair],
    )


def model(folder: Path, name: str, inputs: list[Any], outputs: list[Any]) -> None:
    put(folder, name, inputs=inputs, outputs=outputs)


async def main(folder: Path) -> None:
    write_settings(folder)
    registry = CollectorRegistry()
    engine = Engine(Repository(folder), Metrics(registry), load=Identity)
    assert await engine.load_all() == []
    app = application(RuntimeService(engine), registry)
    await serve(
        Listener(app, ANY_PORT),
        started=lambda addresses: print(f"serving on {addresses[0]}", flush=True),  # noqa: T201  # for the test
    )
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
