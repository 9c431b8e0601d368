"""How a command asks a server: where that is, over TLS or not, and as whom."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from router.client import Client, Trust

T = TypeVar("T")

KEY = "CROUPIER_KEY"
"""The environment variable that holds the key of who asks."""

ABOUT_KEY = f"A server that knows its clients by keys is asked with the one in the environment variable {KEY}."

SERVER = "127.0.0.1:8080"
"""The one that is asked where nobody says which."""

PATIENCE_SECONDS = 120.0
"""For an answer."""

_TLS = "https://"
_NOBODY = ("failed to connect to all addresses", "errors resolving ")  # how grpcio begins to say so


def add_server(parser: argparse.ArgumentParser, group: Any) -> None:
    """Adds the options that say which server to ask: `--server` to a group of the parser, the others beside it."""
    group.add_argument(
        "--server",
        default=SERVER,
        metavar="HOST:PORT",
        help="127.0.0.1:8080; https://HOST:PORT is asked over TLS, and so is any with --ca or --certificate",
    )
    parser.epilog = ABOUT_KEY
    tls = parser.add_argument_group("TLS", "PEM files, where the server speaks TLS")
    tls.add_argument(
        "--ca", default="", metavar="FILE", help="who signs its certificate; else whom this machine trusts"
    )
    tls.add_argument("--server-name", default="", metavar="NAME", help="whom its certificate is for, if not the host")
    tls.add_argument("--certificate", default="", metavar="FILE", help="yours, where it wants one")
    tls.add_argument("--key", default="", metavar="FILE", help="of your certificate")


def ask(arguments: argparse.Namespace, question: Callable[[Client], T]) -> T:
    """The answer of the server that the options name. Raises Unavailable with its sentence, and InvalidArgument."""
    import grpc

    from protos.errors import Unavailable
    from router.client import Client

    trust = _trust(arguments)
    target = arguments.server.removeprefix(_TLS)
    with Client(target, timeout=PATIENCE_SECONDS, key=os.environ.get(KEY, ""), tls=trust) as client:
        try:
            return question(client)
        except grpc.RpcError as error:
            raise Unavailable(_sentence(arguments.server, error, trust)) from None


def again(arguments: argparse.Namespace) -> str:
    """The options that say which server was asked, for another command; empty where it is the usual one."""
    if getattr(arguments, "config", None) is not None:
        return " --server HOST:PORT"  # the store was read, and a report is a server's
    usual_ones = {"server": SERVER, "ca": "", "server_name": "", "certificate": "", "key": ""}
    return "".join(
        f" --{name.replace('_', '-')} {shlex.quote(value)}"
        for name, usual in usual_ones.items()
        if (value := getattr(arguments, name)) != usual
    )


def _trust(arguments: argparse.Namespace) -> Trust | None:
    from protos.errors import InvalidArgument
    from router.client import Trust

    try:
        trust = Trust(
            ca=arguments.ca, certificate=arguments.certificate, key=arguments.key, server_name=arguments.server_name
        )
    except ValueError as error:
        raise InvalidArgument(f"--{error}") from None
    return trust if trust != Trust() or arguments.server.startswith(_TLS) else None


def _sentence(server: str, error: Any, trust: Trust | None) -> str:
    """What came instead of an answer, and what would help."""
    import grpc

    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return f"{server} answered: {details}; put the key into the environment variable {KEY}"
    if code is not grpc.StatusCode.UNAVAILABLE or not details.startswith(_NOBODY):
        return f"{server} answered: {details}"
    if trust is None:
        return f"nobody answers at {server}: start it, name it with --server, or give --ca where it speaks TLS"
    advice = "--ca must have signed its certificate, and it may want --certificate and --key"
    return f"nobody answers at {server} over TLS: {advice} ({details})"
