"""The command line: `croupier serve`, `croupier check`, `croupier report`, `croupier runtime`, `croupier export`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from protos.errors import CallError
from router.config import read_config
from router.stores import StoreError

OTHERS = {"runtime": "runtime", "export": "runtime.export"}
"""Commands that are programs of their own, by module."""


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="croupier", description="Serves models and deals requests between them.")
    parser.add_argument("--version", action="version", version=version("croupier"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the routes of a configuration")
    serve.add_argument("config", type=Path)
    check = commands.add_parser("check", help="say whether a configuration is right, and where it is not")
    check.add_argument("config", type=Path)
    commands.add_parser("runtime", help="serve a folder of models")
    commands.add_parser("export", help="make a model's folder of a PyTorch module")
    report = commands.add_parser("report", help="what is known about the arms of a route now")
    report.add_argument("route")
    report.add_argument("--server", default="127.0.0.1:8080", metavar="HOST:PORT")
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in OTHERS:
        _become(OTHERS[argv[0]], argv[1:])  # as they are: argparse would move options behind words
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        if arguments.command == "serve":
            return _serve(arguments.config)
        if arguments.command == "check":
            return _check(arguments.config)
        return _report(arguments.route, arguments.server)
    except (CallError, StoreError, OSError) as error:
        print(f"croupier: {error}", file=sys.stderr)
        return 1


def _serve(path: Path) -> int:
    from router.server import serve_router

    config = read_config(path)

    def started(clients: str, operators: str) -> None:
        route = next(iter(config.routes))
        print(
            f"serving {len(config.routes)} route(s) on {clients} (gRPC and REST); metrics on http://{operators}/metrics\n"
            f"try: curl http://{clients}/v2/models/{route}   or: croupier report {route} --server {clients}",
            flush=True,
        )

    asyncio.run(serve_router(path, config, started))
    return 0


def _check(path: Path) -> int:
    config = read_config(path)
    for name, route in config.routes.items():
        print(f"{name}: {', '.join(route.arms)} by {type(route.policy).__struct_config__.tag}")
    print(f"{path} is right; next: croupier serve {path}")
    return 0


def _report(route: str, server: str) -> int:
    from router.report import route_report

    print(route_report(route, server))
    return 0


def _become(module: str, argv: list[str]) -> NoReturn:
    # Another program, which this one does not import: it takes over the process.
    os.execv(sys.executable, [sys.executable, "-m", module, *argv])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
