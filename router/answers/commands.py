"""`croupier report`, `explain`, `evaluate`, `events` and switches: asked of a server, some of the store itself."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.answers.asking import add_server, again, ask
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
    evaluate.add_argument("--most", type=_count, default=0, metavar="N", help="decisions of the log, the newest")
    events = commands.add_parser("events", help="what was done to a route, and why")
    events.add_argument("route")
    events.add_argument("--after", default="", metavar="ID", help="only what came after this event")
    switch = commands.add_parser("switch", help="switch an arm off, or on again, in all replicas")
    switch.add_argument("route")
    switch.add_argument("arm")
    switch.add_argument("to", choices=["on", "off"], metavar="on|off")
    freeze = commands.add_parser("freeze", help="have a route learn no more: its policy stays as it is")
    thaw = commands.add_parser("thaw", help="have it learn again, also where a guardrail froze it")
    for parser in (freeze, thaw):
        parser.add_argument("route")
    for parser in (switch, freeze, thaw):
        parser.add_argument("--why", required=True, metavar="TEXT", help="for the event log")
        who = "for the event log, beside the name of the client where there is a key; $USER"
        parser.add_argument("--who", default=os.environ.get("USER", ""), metavar="NAME", help=who)
    for parser in (report, evaluate):
        parser.add_argument(
            "--alpha", type=_probability, metavar="A", help="probability that an interval ever misses; 0.05"
        )
    for parser in (report, explain, evaluate, events, switch, freeze, thaw):
        parser.add_argument("--json", action="store_true", help="the message behind the table")
        where = parser.add_mutually_exclusive_group()
        add_server(parser, where)
        if parser in (explain, evaluate):
            where.add_argument(
                "--config", type=Path, metavar="FILE", help="ask no server, read the store that it names"
            )


def answer(arguments: argparse.Namespace, say: Callable[[str], None], *, colours: bool) -> str:
    """What a command answers, as text; `say` hears how it gets on. Raises CallError, StoreError and OSError."""
    from router.answers import shown
    from router.answers.shown_report import show_report
    from router.answers.tables import Ink

    if getattr(arguments, "config", None) is None:
        message = ask(arguments, lambda client: _ask(client, arguments))
    else:
        message = _read(arguments, say)
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
        "switch": shown.show_switches,
        "freeze": shown.show_switches,
        "thaw": shown.show_switches,
    }[arguments.command]
    return "\n".join(show(message, Ink(colours=colours), again(arguments)))


def _ask(client: Client, arguments: argparse.Namespace) -> Any:
    if arguments.command == "report":
        return client.report(arguments.route, alpha=arguments.alpha)
    if arguments.command == "explain":
        return client.explain(arguments.decision, show_unit=arguments.unit)
    if arguments.command == "evaluate":
        policy = arguments.policy.read_text("utf-8")
        return client.evaluate(arguments.route, policy, alpha=arguments.alpha, most=arguments.most)
    if arguments.command == "events":
        return client.events(arguments.route, after=arguments.after)
    if arguments.command == "switch":
        arm, on = arguments.arm, arguments.to == "on"
    else:
        arm, on = "", arguments.command == "thaw"
    return client.switch(arguments.route, arm, on=on, why=arguments.why, who=arguments.who)


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
    from router.answers.reading import EVERY, read_study
    from router.answers.service import ALPHA
    from router.errors import UnknownRoute
    from router.learning.versions import Versions, last_settings
    from router.learning.warm_start import taught

    route = arguments.route
    served = config.routes.get(route) or last_settings(store, route)
    if served is None:
        raise UnknownRoute(route, config.routes)
    settings = with_policy(served, arguments.policy.read_text("utf-8"))
    read = 0

    def progress() -> None:
        nonlocal read
        if read and read // _EACH > (read - EVERY) // _EACH:
            say(f"read {read // _EACH * _EACH:,} decisions")
        read += EVERY

    study = read_study(store, route, settings, Versions(), most=arguments.most or MOST_LOCALLY, pause=progress)
    warm = partial(taught, store, settings, most=MOST_LOCALLY)
    return evaluation(study, route, settings, alpha=ALPHA if arguments.alpha is None else arguments.alpha, warm=warm)


def _probability(text: str) -> float:
    """Of a miss, as an argument."""
    try:
        alpha = float(text)
    except ValueError:
        alpha = 0.0
    if not 0.0 < alpha < 1.0:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return alpha


def _count(text: str) -> int:
    """Of decisions, as an argument."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)
