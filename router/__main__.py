"""Commands: `croupier serve`, `check`, `report`, `explain`, `evaluate`, `events`, `switch`, `key` and others."""

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

from protos.ending import leave
from protos.errors import CallError, InvalidArgument
from router.answers.asking import ABOUT_KEY, KEY
from router.answers.commands import add_commands, answer
from router.config import Config, read_config
from router.errors import ConfigError, UnknownRoute
from router.stores import StoreError, open_store

OTHERS = {"runtime": "runtime", "export": "runtime.export"}
"""Commands that are programs of their own, by module."""


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the process's exit status."""
    parser = argparse.ArgumentParser(
        prog="croupier", description="Serves models and deals requests between them.", epilog=ABOUT_KEY
    )
    parser.add_argument("--version", action="version", version=version("croupier"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the routes of a configuration")
    serve.add_argument("config", type=Path)
    check = commands.add_parser("check", help="say whether a configuration is right; loads no models")
    check.add_argument("config", type=Path)
    check.add_argument(
        "--connect",
        action="store_true",
        help="also open its store, ask its remote arms, and look for the logs to begin with",
    )
    commands.add_parser("key", help="make a key for a client")
    commands.add_parser("runtime", help="serve a folder of models")
    commands.add_parser("export", help="make a model's folder of a PyTorch module")
    add_commands(commands)
    log = commands.add_parser("export-log", help="write down all decisions of a route: JSON lines, or Parquet")
    log.add_argument("config", type=Path)
    log.add_argument("route")
    log.add_argument("--parquet", type=Path, metavar="FILE")
    moment = "a time such as 2026-11-23 or 2026-11-23T14:30, in UTC, or the id of a decision"
    log.add_argument(
        "--after", default="", metavar="WHEN", help=f"only decisions from then on, or after that one; {moment}"
    )
    log.add_argument("--before", default="", metavar="WHEN", help="only decisions before then")
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in OTHERS:
        _become(OTHERS[argv[0]], argv[1:])  # as they are: argparse would move options behind words
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        status = _done(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter tries again as it ends
        return 1
    except (CallError, StoreError, OSError) as error:
        print(f"croupier: {error}", file=sys.stderr)
        return 1


def _done(arguments: argparse.Namespace) -> int:
    if arguments.command == "serve":
        return _serve(arguments.config)
    if arguments.command == "check":
        return _check(arguments.config, connect=arguments.connect)
    if arguments.command == "key":
        return _key()
    if arguments.command == "export-log":
        return _export_log(arguments)
    return _answer(arguments)


def _serve(path: Path) -> int:
    from router.check import here
    from router.server import serve_router
    from router.workers import Work, supervise

    work = Work.of(path)
    config = work.config()
    if _told(path, here(config)):
        return 1

    def started(clients: str, operators: str) -> None:
        print(welcome(config, clients, operators), flush=True)

    try:
        if config.workers > 1:
            return 0 if asyncio.run(supervise(work, started)) else 1
        asyncio.run(serve_router(path, config, started))
        leave(0)
    except OSError as error:
        key = {config.listen: "listen", config.admin: "admin"}.get(str(error.filename))
        if key is None:
            raise
        raise ConfigError(f"{path}: {key}: {error.filename} cannot be listened on: {error.strerror}") from None


def welcome(config: Config, clients: str, operators: str) -> str:
    """Where it serves, and what to try; CA.pem, YOU.pem and YOU.key stand for files that only clients have."""
    route = next(iter(config.routes))
    admin = f"{'https' if config.admin_tls else 'http'}://{operators}"
    curl, croupier = [f"curl http://{clients}/v2/models/{route}"], [f"croupier report {route} --server {clients}"]
    if config.tls is not None:
        curl = [f"curl https://{clients}/v2/models/{route} --cacert CA.pem"]
        croupier.append("--ca CA.pem")
        if config.tls.client_ca:
            curl.append("--cert YOU.pem --key YOU.key")
            croupier.append("--certificate YOU.pem --key YOU.key")
    if config.clients and all(client.key_sha256 for client in config.clients.values()):
        curl.append(f'-H "authorization: Bearer ${KEY}"')
    return (
        f"serving {len(config.routes)} route(s) on {clients} (gRPC and REST); metrics on {admin}/metrics\n"
        f"dashboard: {admin}/dashboard\n"
        f"try: {' '.join(curl)}   or: {' '.join(croupier)}"
    )


def _check(path: Path, *, connect: bool) -> int:
    from router.check import away, here

    config = read_config(path)
    for name, route in config.routes.items():
        print(f"{name}: {', '.join(route.arms)} by {type(route.policy).__struct_config__.tag}")
    if _told(path, here(config) or (away(config) if connect else [])):
        return 1
    if connect:
        print("its store opens, and its remote arms answer")
    print(f"{path} is right; next: croupier serve {path}")
    return 0


def _told(path: Path, faults: list[str]) -> bool:
    """Says what is wrong with a configuration; whether anything is."""
    for fault in faults:
        print(f"croupier: {path}: {fault}", file=sys.stderr)
    return bool(faults)


def _export_log(arguments: argparse.Namespace) -> int:
    from router.export import export, metrics_of, whole_file

    config, route = read_config(arguments.config), arguments.route
    after, before = (_bound(arguments, name) for name in ("after", "before"))
    store = open_store(config.store)
    try:
        metrics = metrics_of(store, route, config.routes.get(route))
        if metrics is None:
            raise UnknownRoute(route, config.routes)
        if arguments.parquet is None:
            export(store, route, "jsonl", sys.stdout.buffer, after=after, before=before, metrics=metrics)
            return 0
        with whole_file(arguments.parquet) as out:
            count = export(store, route, "parquet", out, after=after, before=before, metrics=metrics)
        print(f"{count} decisions are in {arguments.parquet}", file=sys.stderr)
        return 0
    finally:
        store.close()


def _bound(arguments: argparse.Namespace, name: str) -> str:
    from router.export import bound

    text: str = getattr(arguments, name)
    try:
        return bound(text) if text else ""
    except ValueError:
        raise InvalidArgument(f"--{name}: {text!r} is neither a time such as 2026-11-23T14:30 nor a decision") from None


def _key() -> int:
    key = secrets.token_urlsafe(32)
    print(f"key:        {key}\nkey_sha256: {hashlib.sha256(key.encode()).hexdigest()}")
    print('The client sends "authorization: Bearer KEY"; the configuration has the second line, under clients.NAME.')
    print(f"The commands of croupier send what stands in the environment variable {KEY}.")
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
