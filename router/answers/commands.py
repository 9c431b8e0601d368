"""`croupier report`, `explain`, `evaluate` and `events`: asked of a server, or some of them of the store itself."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.answers.candidate import EVALUATED

if TYPE_CHECKING:
    from protos.messages import Evaluation, Explanation
    from router.client import Client
    from router.config import Config
    from router.stores import Store

COMMANDS = ("report", "explain", "evaluate", "events")

MOST_LOCALLY = 1_000_000
"""Decisions that an evaluation reads which asks no server."""

FILE = (
    "as under the key policy of a route, in YAML; or policy, and beside it floor, budget, half_life_seconds or "
    "warm_start"
)

_EACH = 50_000  # decisions that are read between two lines about it


def add_commands(commands: Any) -> None:
    """Adds the commands to those of a parser."""
    report = commands.add_parser("report", help="what is known about the arms of a route now")
    report.add_argument("route")
    explain = commands.add_parser("explain", help="why a request went where it went; the choice is made again")
    explain.add_argument("decision")
    explain.add_argument("--unit", action="store_true", help="also show who was experimented on")
    evaluate = commands.add_parser(
        "evaluate", help="what another policy would have earned, told from the log", description=f"{EVALUATED}."
    )
    evaluate.add_argument("route")
    evaluate.add_argument("--policy", type=Path, required=True, metavar="FILE", help=FILE)
    evaluate.add_argument("--most", type=int, default=0, metavar="N", help="decisions of the log, the newest")
    events = commands.add_parser("events", help="what was done to a route, and why")
    events.add_argument("route")
    events.add_argument("--after", default="", metavar="ID", help="only what came after this event")
    for parser in (report, evaluate):
        parser.add_argument("--alpha", type=float, metavar="A", help="probability that an interval ever misses; 0.05")
    for parser in (report, explain, evaluate, events):
        parser.add_argument("--json", action="store_true", help="the message behind the table")
        where = parser.add_mutually_exclusive_group()
        where.add_argument("--server", default="127.0.0.1:8080", metavar="HOST:PORT")
        if parser in (explain, evaluate):
            where.add_argument(
                "--config", type=Path, metavar="FILE", help="ask no server, read the store that it names"
            )


def answer(arguments: argparse.Namespace, say: Callable[[str], None], *, colours: bool) -> str:
    """What a command answers, as text; `say` hears how it gets on. Raises CallError, StoreError and OSError."""
    from router.answers import shown
    from router.answers.shown_report import show_report
    from router.answers.tables import Ink

    message = _asked(arguments) if getattr(arguments, "config", None) is None else _read(arguments, say)
    if arguments.json:
        from google.protobuf import json_format

        return json_format.MessageToJson(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    show: Any = {
        "report": show_report,
        "explain": shown.show_explanation,
        "evaluate": shown.show_evaluation,
        "events": shown.show_events,
    }[arguments.command]
    return "\n".join(show(message, Ink(colours=colours)))


def _asked(arguments: argparse.Namespace) -> Any:
    """The answer of a server. Raises Unavailable with its sentence when it refuses."""
    import grpc

    from protos.errors import Unavailable
    from router.client import Client

    with Client(arguments.server, timeout=120.0, key=os.environ.get("CROUPIER_KEY", "")) as client:
        try:
            return _ask(client, arguments)
        except grpc.RpcError as error:
            raise Unavailable(f"{arguments.server} answered: {error.details()}") from None


def _ask(client: Client, arguments: argparse.Namespace) -> Any:
    if arguments.command == "report":
        return client.report(arguments.route, alpha=arguments.alpha)
    if arguments.command == "explain":
        return client.explain(arguments.decision, show_unit=arguments.unit)
    if arguments.command == "evaluate":
        policy = arguments.policy.read_text("utf-8")
        return client.evaluate(arguments.route, policy, alpha=arguments.alpha, most=arguments.most)
    return client.events(arguments.route, after=arguments.after)


def _read(arguments: argparse.Namespace, say: Callable[[str], None]) -> Explanation | Evaluation:
    """The answer of the store that a configuration names."""
    from router.config import read_config
    from router.errors import ConfigError
    from router.stores import open_store

    config = read_config(arguments.config)
    if config.store == "memory:":
        raise ConfigError(f"{arguments.config}: store: what is in memory only its server knows; ask it with --server")
    try:
        store = open_store(config.store)
    except ValueError as error:
        raise ConfigError(f"{arguments.config}: store: {error}") from None
    try:
        if arguments.command == "evaluate":
            return _evaluated(store, config, arguments, say)
        from router.answers.explain import explain

        return explain(store, arguments.decision, show_unit=arguments.unit)
    finally:
        store.close()


def _evaluated(store: Store, config: Config, arguments: argparse.Namespace, say: Callable[[str], None]) -> Evaluation:
    from functools import partial

    from router.answers.candidate import with_policy
    from router.answers.evaluate import evaluation
    from router.answers.reading import EVERY, Versions, read_study
    from router.answers.service import ALPHA
    from router.errors import UnknownRoute
    from router.learning.warm_start import taught

    route = arguments.route
    if route not in config.routes:
        raise UnknownRoute(route, config.routes)
    settings = with_policy(config.routes[route], arguments.policy.read_text("utf-8"))
    read = 0

    def progress() -> None:
        nonlocal read
        if read and read // _EACH > (read - EVERY) // _EACH:
            say(f"read {read // _EACH * _EACH:,} decisions")
        read += EVERY

    study = read_study(
        store, route, settings, Versions(), most=arguments.most or MOST_LOCALLY, now=time.time(), pause=progress
    )
    warm = partial(taught, store, settings, most=MOST_LOCALLY)
    return evaluation(study, route, settings, alpha=ALPHA if arguments.alpha is None else arguments.alpha, warm=warm)
