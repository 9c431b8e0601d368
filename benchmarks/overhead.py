"""What does a request cost? CPU time of the server's processes, ours beside MLServer's, in one run.

Every server answers the same 102-byte V2 request with the same TorchScript MLP (20-64-64-1), in interleaved rounds.
What counts is the median of the rounds in which nothing slowed the machine (see `pace`); beside it stands that of all
rounds. Short rounds are repeated until each server has enough calm ones, or patience ends: then all rounds count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.h2load import load
from benchmarks.pace import Pace, Rounds, interleaved
from benchmarks.process import Target
from benchmarks.servers import MLSERVER, OURS
from benchmarks.targets import (
    FULL,
    MESSAGE_BYTES,
    METHOD,
    check,
    message,
    our_full_router,
    our_router,
    our_runtime,
    stock_mlserver,
)

BOUNDS = {"runtime": 90.0, "router": 120.0}
"""CPU microseconds a request that we promise, the router's with its decisions, metrics and SQLite log."""
FULL_ADDS = 60.0
"""CPU microseconds that the router, with all that it can do for a request, may add to the runtime."""


@dataclass(frozen=True)
class Round:
    """What one server took in one round."""

    cpu_us: float  # a request
    rate: float  # requests a second
    alone: float  # seconds of a request, one at a time


@dataclass(frozen=True)
class Figures:
    """What one server took: the median of its calm rounds, where every server has enough of them, else of all."""

    cpu_us: float
    cpu_us_of_all: float
    cpu_us_least: float
    rate: float
    alone: float
    rounds: int
    calm: int


def measure(calm_rounds: int, requests: int, patience: float) -> dict[str, Figures]:
    """What each server takes, measured until each has so many calm rounds, or for `patience` seconds."""
    request, pace = message(), Pace()
    if len(request) != MESSAGE_BYTES:
        raise RuntimeError(f"the request has {len(request)} bytes, not {MESSAGE_BYTES}")
    with ExitStack() as stack:
        targets = []
        for start in (our_runtime, our_router, our_full_router, stock_mlserver):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            print(f"starting {start.__name__} ...", file=sys.stderr, flush=True)
            targets.append(stack.enter_context(start(folder)))
        for target in targets:
            check(target, request)
            load(target.address, METHOD, request, requests=requests)

        def heard(rounds: Mapping[str, Rounds[Round]]) -> None:
            told = ", ".join(f"{name} {each.all[-1].cpu_us:.0f} us" for name, each in rounds.items())
            fewest = min(len(each.calm) for each in rounds.values())
            print(f"{told}; calm: {fewest} of {calm_rounds}", file=sys.stderr, flush=True)

        measures = {
            target.name: partial(_round, target, request, requests // 8 if target.name == MLSERVER else requests)
            for target in targets
        }
        rounds = interleaved(measures, pace, enough=calm_rounds, patience=patience, heard=heard)
    return {name: _figures(each) for name, each in rounds.items()}


def _round(target: Target, request: bytes, requests: int) -> Round:
    before = target.process.cpu_seconds()
    seen = load(target.address, METHOD, request, requests=requests)
    cpu = (target.process.cpu_seconds() - before) / requests
    single = load(target.address, METHOD, request, requests=requests // 20, clients=1, streams=1)
    return Round(cpu * 1e6, requests / seen.seconds, single.mean_seconds)


def _figures(rounds: Rounds[Round]) -> Figures:
    return Figures(
        cpu_us=statistics.median(each.cpu_us for each in rounds.counted),
        cpu_us_of_all=statistics.median(each.cpu_us for each in rounds.all),
        cpu_us_least=min(each.cpu_us for each in rounds.all),
        rate=statistics.median(each.rate for each in rounds.counted),
        alone=statistics.median(each.alone for each in rounds.counted),
        rounds=len(rounds.all),
        calm=len(rounds.calm),
    )


def main() -> int:
    """Prints the table; returns 1 when one of ours costs more than promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--patience", type=float, default=240.0, help="seconds to wait for calm rounds (240)")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else 9
    figures = measure(rounds, 3_000, 0.0 if arguments.quick else arguments.patience)
    base, peer = figures[OURS].cpu_us, figures[MLSERVER].cpu_us
    if arguments.json:
        print(json.dumps({name: asdict(each) for name, each in figures.items()}))
    else:
        print(
            f"{'server':<10}{'CPU us/request':>16}{'adds':>8}{'of MLServer':>13}{'requests/s':>12}{'alone':>10}"
            f"{'calm rounds':>14}{'all rounds':>12}{'least':>11}  promised"
        )
        for name, each in figures.items():
            promised = f"<= {BOUNDS[name]:.0f} us" if name in BOUNDS else ""
            if name == FULL:
                promised = f"adds <= {FULL_ADDS:.0f} us"
            print(
                f"{name:<10}{each.cpu_us:>16.1f}{each.cpu_us - base:>8.1f}{each.cpu_us / peer:>12.2f}x"
                f"{each.rate:>12,.0f}{each.alone * 1e3:>7.2f} ms{each.calm:>8} of {each.rounds:<3}"
                f"{each.cpu_us_of_all:>9.1f} us{each.cpu_us_least:>8.1f} us  {promised}"
            )
        print(f"h2load -c4 -m8, {MESSAGE_BYTES}-byte request; alone: mean latency of one request at a time")
        if min(each.calm for each in figures.values()) < rounds:
            print(f"not every server had {rounds} calm rounds: the figures are those of all rounds, slowed as they are")
    return figures[FULL].cpu_us - base > FULL_ADDS or any(figures[name].cpu_us > most for name, most in BOUNDS.items())


if __name__ == "__main__":
    sys.exit(main())
