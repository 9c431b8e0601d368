"""A stock MLServer and our runtime, each a process of its own with its own copy of the models."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.conformance.models import LATER, MODELS, OURS, write
from benchmarks.process import free_port, server


@dataclass(frozen=True)
class Target:
    """Where a server answers, HOST:PORT."""

    rest: str
    grpc: str
    metrics: str


@contextmanager
def stock(folder: Path) -> Iterator[Target]:
    """`mlserver start`, without worker processes, which die with uvloop 0.22 and later."""
    models = folder / "models"
    write(models, MODELS, theirs=True)
    ports = {f"{protocol}_port": free_port() for protocol in ("http", "grpc", "metrics")}
    settings = {"debug": False, "parallel_workers": 0, "host": "127.0.0.1", **ports}
    (models / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "mlserver.cli.main", "start", "."]
    with server(command, folder / "log", folder=models) as process:
        for path in MODELS:
            process.wait_for(rf"Loaded model '{path.partition('/')[0]}' successfully")
        process.wait_for(f"Uvicorn running on .*:{ports['http_port']}")
        write(models, LATER, theirs=True)
        http, grpc, metrics = (f"127.0.0.1:{port}" for port in ports.values())
        yield Target(http, grpc, metrics)


@contextmanager
def ours(folder: Path) -> Iterator[Target]:
    """`croupier runtime`, all on one port."""
    models = folder / "models"
    write(models, MODELS | OURS, theirs=False)
    command = [sys.executable, "-m", "runtime", str(models), "--port", "0"]
    with server(command, folder / "log") as process:
        address = process.wait_for(r"^serving .* on (127\.0\.0\.1:\d+)")[1]
        write(models, LATER, theirs=False)
        yield Target(address, address, address)
