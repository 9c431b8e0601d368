"""`python -m runtime MODELS` serves a folder of models."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from protos.ending import leave
from protos.errors import FailedPrecondition
from runtime.naming import parted
from runtime.process import Started, serve_models, set_up_log
from runtime.server_settings import FILE, PORTS, Protocol, ServerSettings, check_host, read_server_settings
from runtime.supervisor import supervise

MODELS = "MLSERVER_MODELS_DIR"  # of MLServer's images


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT. Returns the exit status: 1 after a sentence on stderr when it cannot start."""
    set_up_log(debug=False)
    try:
        models, settings = _told(_parser().parse_args(argv))
    except FailedPrecondition as error:
        print(error, file=sys.stderr)
        return 1
    set_up_log(debug=settings.debug)
    if settings.tracing_server and not _can_trace():
        print(
            "tracing_server: spans need OpenTelemetry, which is not installed: pip install 'croupier[otel]'",
            file=sys.stderr,
        )
        return 1
    try:
        os.scandir(models).close()
    except (FileNotFoundError, NotADirectoryError):
        print(f"there is no folder {models}; give the one that holds the models' folders", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"the folder {models} cannot be listed: {error.strerror}", file=sys.stderr)
        return 1
    try:
        return 0 if asyncio.run(_serve(models, settings)) else 1
    except OSError as error:
        if error.filename is None:  # then it is no address that could not be bound
            raise
        print(f"cannot listen on {error.filename}: {error.strerror}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="croupier runtime",
        description="Serves models over the V2 protocol, gRPC and REST.",
        epilog=f"Other settings are those of MLServer, in MODELS/{FILE} and in MLSERVER_* variables. "
        "The first that is given counts: here, in the file, in a variable.",
    )
    parser.add_argument(
        "models",
        nargs="?",
        type=Path,
        metavar="MODELS",
        help=f"a folder of NAME/[VERSION/]model-settings.json; ${MODELS}",
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, help="of gRPC, REST and /metrics together (default 8080); 0 for any free one"
    )
    for protocol, default in PORTS.items():
        parser.add_argument(
            f"--{protocol}-port", type=int, metavar="PORT", help=f"of its own ({default} once another has its own)"
        )
    parser.add_argument(
        "--workers", dest="parallel_workers", type=int, metavar="N", help="processes that share the ports (default 1)"
    )
    parser.add_argument("--load", choices=["all", "none"], help="which models at the start (default all)")
    return parser


def _told(arguments: argparse.Namespace) -> tuple[Path, ServerSettings]:
    """The folder of models and the settings, of which the command line counts first. Raises FailedPrecondition."""
    folder = arguments.models or os.environ.get(MODELS)
    settings = read_server_settings(Path(folder or "."), os.environ)
    given = {name: value for name, value in vars(arguments).items() if value is not None and name != "models"}
    if "load" in given:
        given["load_models_at_startup"] = given.pop("load") == "all"
    if "port" in given:
        if own := given.keys() & {f"{protocol}_port" for protocol in PORTS}:
            raise FailedPrecondition(f"--port is one for all protocols: leave it out, or {' and '.join(sorted(own))}")
        given |= dict.fromkeys([f"{protocol}_port" for protocol in PORTS])
    try:
        settings = msgspec.convert({**msgspec.structs.asdict(settings), **given}, ServerSettings)
    except msgspec.ValidationError as error:
        key, what = parted(error)
        option = key.removeprefix("parallel_").replace("_", "-")
        raise FailedPrecondition(f"--{option}: {what}") from None
    check_host(settings.host, "--host")
    return Path(folder or settings.model_repository_root), settings


async def _serve(models: Path, settings: ServerSettings) -> bool:
    """Whether it could be served."""

    def started(what: Started) -> None:
        for name, reason in what.failed:
            print(f"model {name!r} is not served: {reason}", file=sys.stderr)
        print(_welcome(settings, what), flush=True)

    if settings.parallel_workers > 1:
        return await supervise(models, settings, started)
    await serve_models(models, settings, [bind for bind, _ in settings.listeners()], started)
    return True


def _can_trace() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.grpc") is not None
    except ModuleNotFoundError:  # one of the packages above it
        return False


def _welcome(settings: ServerSettings, started: Started) -> str:
    what = ", ".join(started.served) or "no models"
    path = f"v2/models/{started.served[0]}" if started.served else "v2/repository/index -X POST"
    listeners = zip(started.addresses, settings.listeners(), strict=True)
    where: dict[Protocol, str] = {protocol: address for address, (_, speaks) in listeners for protocol in speaks}
    http, grpc = where["http"], where["grpc"]
    on = f"{http}, gRPC and REST" if http == grpc else f"{http}, REST; gRPC on {grpc}"
    if (metrics := where.get("metrics", http)) != http:
        on += f"; metrics on {metrics}"
    return f"serving {what} on {on}; try: curl http://{http}/{path}"


if __name__ == "__main__":
    leave(main())
