"""`python -m router.demo`: train, serve, replay, report. With --serve: the same service, up until stopped."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
from rich.console import Console
from rich.progress import Progress

from router.client import Client
from router.demo.live import watched
from router.demo.next_steps import CLIENTS, DASHBOARD, OPERATORS, commands
from router.demo.past import context_of, picked
from router.demo.report import print_report
from router.demo.routes import CONTEXTUAL, PLAIN, POLICY_FILE, write_config
from router.demo.service import serve_command, served
from runtime.finance import Build, build
from runtime.finance.data import load
from runtime.finance.report import accuracy_table, on_bars, reasons
from runtime.finance.task import Split, samples, split

_QUICK_DAYS = 250
_PIPED_WIDTH = 100
_PATIENCE = 60.0  # seconds that a question about the whole log may take


def main() -> int:
    """Runs the demo; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m router.demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="hardly trained models, one year of days")
    parser.add_argument("--serve", action="store_true", help="serve the models until stopped, and replay nothing")
    parser.add_argument("--folder", type=Path, default=Path("build/demo"), help="where models and data go")
    arguments = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    folder: Path = arguments.folder / ("quick" if arguments.quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    parts = split(samples(load()))
    built = _built(folder / "models", parts, console, quick=arguments.quick)
    if arguments.serve:
        _serve(folder, parts, built)
    return _replay(folder, parts, built, console, quick=arguments.quick)


def _built(models: Path, parts: Split, console: Console, *, quick: bool) -> Build:
    console.rule("The models")
    console.print("Will tomorrow's high-low range of the index exceed its one-year median?")
    with Progress(console=console, transient=True) as bars:
        built = build(models, progress=on_bars(bars), quick=quick)
    console.print(f"{len(built.names)} models {'reused from' if built.reused else 'trained into'} {models}")
    console.print(reasons(), accuracy_table(built, parts.test))
    return built


def _serve(folder: Path, parts: Split, built: Build) -> NoReturn:
    config = write_config(folder, built.names, context_of(parts.train), listen=CLIENTS, admin=OPERATORS)
    print(f"the dashboard: {DASHBOARD}", flush=True)
    command = serve_command(config)
    # The server takes over the process: who stops the one stops the other.
    os.execv(command[0], command)  # noqa: S606


def _replay(folder: Path, parts: Split, built: Build, console: Console, *, quick: bool) -> int:
    for old in folder.glob("croupier.db*"):
        old.unlink()  # each demo starts with nothing learnt
    config = write_config(folder, built.names, context_of(parts.train), listen="127.0.0.1:0", admin="127.0.0.1:0")
    chosen = np.ones(len(parts.test), dtype=np.bool_)
    if quick:
        chosen = parts.test.day >= np.unique(parts.test.day)[-_QUICK_DAYS]
    test = parts.test.where(chosen)
    console.rule(f"The replay: {test.day[0]} to {test.day[-1]}, days that no model has seen")
    with served(config, folder / "server.log") as target:
        done = asyncio.run(watched(target, test, console))
        with Client(target, timeout=_PATIENCE) as operator:
            described = operator.describe(PLAIN)
            judged = operator.evaluate(PLAIN, (folder / POLICY_FILE).read_text("utf-8"))
    hindsight = {name: probability[chosen] for name, probability in built.probability.items()}
    pick = picked(built.folder, built.names, parts.validation)
    print_report(console, test, done, described, hindsight, pick, judged)
    console.rule("Next")
    serve = f"{os.path.relpath(sys.executable)} -m router.demo --quick --serve" if quick else "make serve"
    console.print(f"{serve} goes on from here, with the dashboard at {DASHBOARD}; then, in another shell:")
    for command in commands(folder, done[CONTEXTUAL].decision[-1], CLIENTS):
        console.print(command, soft_wrap=True, highlight=False)
    console.print("The server's log is", folder / "server.log")
    return 1 if any(each.errors for each in done.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
