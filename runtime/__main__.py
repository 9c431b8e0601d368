"""`python -m runtime MODELS` serves a folder of models."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from protos.serve import Listener, serve
from runtime.engine import Engine, State
from runtime.metrics import Metrics
from runtime.repository import Repository
from runtime.server import RuntimeService, application


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT. Returns the exit status: 1 after a sentence on stderr when it cannot start."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    if not arguments.models.is_dir():
        print(f"there is no folder {arguments.models}; give the one that holds the models' folders", file=sys.stderr)
        return 1
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    bind = f"{host}:{arguments.port}"
    return asyncio.run(_serve(arguments.models, bind, load=arguments.load == "all"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runtime", description="Serves models over the V2 protocol, gRPC and REST.")
    parser.add_argument("models", type=Path, metavar="MODELS", help="a folder of NAME/[VERSION/]model-settings.json")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", default=8080, type=int, help="of gRPC, REST and /metrics; 0 for any free one")
    parser.add_argument("--load", default="all", choices=["all", "none"], help="which models at the start")
    return parser


async def _serve(models: Path, bind: str, *, load: bool) -> int:
    registry = CollectorRegistry()
    engine = Engine(Repository(models), Metrics(registry))
    service = RuntimeService(engine)
    loading = await engine.start_loading() if load else None
    tasks = []

    async def announce(address: str) -> None:
        failed = await loading if loading is not None else []
        for entry in failed:
            print(f"model {entry.name!r} is not served: {entry.reason}", file=sys.stderr)
        served = dict.fromkeys(entry.name for entry in await engine.index() if entry.state is State.READY)
        print(_welcome(address, list(served)), flush=True)

    def started(addresses: list[str]) -> None:
        tasks.append(asyncio.create_task(announce(addresses[0])))

    try:
        await serve(Listener(application(service, registry), bind), started=started, stopping=service.stop)
    except OSError as error:
        print(f"cannot listen on {bind}: {error.strerror}", file=sys.stderr)
        return 1
    finally:
        await engine.close()
    return 0


def _welcome(address: str, served: list[str]) -> str:
    what = f"{', '.join(served)}" if served else "no models"
    path = f"v2/models/{served[0]}" if served else "v2/repository/index -X POST"
    return f"serving {what} on {address}, gRPC and REST; try: curl http://{address}/{path}"


if __name__ == "__main__":
    sys.exit(main())
