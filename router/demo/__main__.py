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
from router.demo.report import print_report
from router.demo.service import ROUTE, serve_command, served, write_config
from runtime.finance import Build, build, held_out
from runtime.finance.report import accuracy_table, on_bars, reasons

_QUICK_DAYS = 250
_PIPED_WIDTH = 100


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
    built = _built(folder / "models", console, quick=arguments.quick)
    if arguments.serve:
        _serve(folder, built)
    return _replay(folder, built, console, quick=arguments.quick)


def _built(models: Path, console: Console, *, quick: bool) -> Build:
    console.rule("The models")
    console.print("Will tomorrow's high-low range of the index exceed its one-year median?")
    with Progress(console=console, transient=True) as bars:
        built = build(models, progress=on_bars(bars), quick=quick)
    console.print(f"{len(built.names)} models {'reused from' if built.reused else 'trained into'} {models}")
    console.print(reasons(), accuracy_table(built, held_out()))
    return built


def _serve(folder: Path, built: Build) -> NoReturn:
    command = serve_command(write_config(folder, built.names, listen="127.0.0.1:8080", admin="127.0.0.1:8082"))
    # The server takes over the process: who stops the one stops the other.
    os.execv(command[0], command)  # noqa: S606


def _replay(folder: Path, built: Build, console: Console, *, quick: bool) -> int:
    for old in folder.glob("croupier.db*"):
        old.unlink()  # each demo starts with nothing learnt
    config = write_config(folder, built.names, listen="127.0.0.1:0", admin="127.0.0.1:0")
    samples = held_out()
    chosen = np.ones(len(samples), dtype=np.bool_)
    if quick:
        chosen = samples.day >= np.unique(samples.day)[-_QUICK_DAYS]
    samples = samples.where(chosen)
    console.rule(f"The replay: {samples.day[0]} to {samples.day[-1]}, days that no model has seen")
    with served(config, folder / "server.log") as target:
        done = asyncio.run(watched(target, samples, console))
        with Client(target) as operator:
            described = operator.describe(ROUTE)
    hindsight = {name: probability[chosen] for name, probability in built.probability.items()}
    print_report(console, samples, done, described, hindsight)
    console.print("\nNext: make serve, then croupier report volatility; the server's log is", folder / "server.log")
    return 1 if done.errors else 0


if __name__ == "__main__":
    sys.exit(main())
