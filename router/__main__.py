"""Commands: `croupier serve`, `check`, `report`, `explain`, `evaluate`, `events`, `key`, `runtime`, and `export`."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import secrets
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from protos.errors import CallError
from router.answers.commands import add_commands, answer
from router.config import read_config
from router.context.rules import check_rules
from router.errors import UnknownRoute
from router.stores import StoreError, check_url, open_store

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
    check.add_argument("--connect", action="store_true", help="also open its store, and ask its remote arms")
    commands.add_parser("key", help="make a key for a client")
    commands.add_parser("runtime", help="serve a folder of models")
    commands.add_parser("export", help="make a model's folder of a PyTorch module")
    add_commands(commands)
    log = commands.add_parser("export-log", help="write down all decisions of a route: JSON lines, or Parquet")
    log.add_argument("config", type=Path)
    log.add_argument("route")
    log.add_argument("--parquet", type=Path, metavar="FILE")
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in OTHERS:
        _become(OTHERS[argv[0]], argv[1:])  # as they are: argparse would move options behind words
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        if arguments.command == "serve":
            return _serve(arguments.config)
        if arguments.command == "check":
            return _check(arguments.config, connect=arguments.connect)
        if arguments.command == "key":
            return _key()
        if arguments.command == "export-log":
            return _export_log(arguments)
        return _answer(arguments)
    except (CallError, StoreError, OSError) as error:
        print(f"croupier: {error}", file=sys.stderr)
        return 1


def _serve(path: Path) -> int:
    from router.server import serve_router
    from router.workers import Work, supervise

    work = Work.of(path)
    config = work.config()

    def started(clients: str, operators: str) -> None:
        route = next(iter(config.routes))
        print(
            f"serving {len(config.routes)} route(s) on {clients} (gRPC and REST); metrics on http://{operators}/metrics\n"
            f"dashboard: http://{operators}/dashboard\n"
            f"try: curl http://{clients}/v2/models/{route}   or: croupier report {route} --server {clients}",
            flush=True,
        )

    if config.workers > 1:
        return 0 if asyncio.run(supervise(work, started)) else 1
    asyncio.run(serve_router(path, config, started))
    return 0


def _check(path: Path, *, connect: bool) -> int:
    config, faults = read_config(path), list[str]()
    for name, route in config.routes.items():
        print(f"{name}: {', '.join(route.arms)} by {type(route.policy).__struct_config__.tag}")
        failures = check_rules(route.rules, route.rule_tests, route.context, list(route.arms), route.timezone)
        faults += [f"routes.{name}.{failure}" for failure in failures]
    try:
        check_url(config.store)
    except ValueError as error:
        faults.append(f"store: {error}")
    if connect and not faults:
        from router.check import away

        faults = away(config)
    for fault in faults:
        print(f"croupier: {path}: {fault}", file=sys.stderr)
    if faults:
        return 1
    if connect:
        print("its store opens, and its remote arms answer")
    print(f"{path} is right; next: croupier serve {path}")
    return 0


def _export_log(arguments: argparse.Namespace) -> int:
    from router.export import export, whole_file

    config = read_config(arguments.config)
    route = config.routes.get(arguments.route)
    if route is None:
        raise UnknownRoute(arguments.route, config.routes)
    store = open_store(config.store)
    try:
        if arguments.parquet is None:
            export(store, arguments.route, "jsonl", sys.stdout.buffer, metrics=list(route.metrics))
            return 0
        with whole_file(arguments.parquet) as out:
            count = export(store, arguments.route, "parquet", out, metrics=list(route.metrics))
        print(f"{count} decisions are in {arguments.parquet}", file=sys.stderr)
        return 0
    finally:
        store.close()


def _key() -> int:
    key = secrets.token_urlsafe(32)
    print(f"key:        {key}\nkey_sha256: {hashlib.sha256(key.encode()).hexdigest()}")
    print('The client sends "authorization: Bearer KEY"; the configuration has the second line, under clients.NAME.')
    return 0


def _answer(arguments: argparse.Namespace) -> int:
    def say(line: str) -> None:
        print(f"croupier: {line}", file=sys.stderr, flush=True)

    print(answer(arguments, say, colours=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    return 0


def _become(module: str, argv: list[str]) -> NoReturn:
    # Another program, which this one does not import: it takes over the process.
    os.execv(sys.executable, [sys.executable, "-m", module, *argv])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
