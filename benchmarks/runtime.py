"""What serving a model costs, and how long a caller waits: ours beside MLServer and Triton, in one run.

Every server holds the same TorchScript archives and answers the same V2 requests over gRPC. CPU time is that of the
server's processes, the median of the rounds in which nothing slowed the machine (see `pace`); latency is what h2load
saw of every request in them. The rounds are interleaved and short. Below stands what a model's first callers wait for,
before its warm-up and after.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks import first
from benchmarks.h2load import Answers, answers
from benchmarks.pace import Pace, Rounds, interleaved
from benchmarks.process import Target
from benchmarks.servers import MLSERVER, MODELS, OURS, SERVERS, TRITON
from benchmarks.targets import METHOD
from protos.framing import frame
from protos.messages import ModelInferRequest, ModelInferResponse
from protos.tensors import add_inputs, outputs_of

# Calls at a time: connections, and streams on each.
CONCURRENT = {1: (1, 1), 8: (4, 2), 32: (4, 8), 64: (8, 8), 256: (8, 32)}
PROMISED = 32  # calls at a time for which promises are made, about the case "mlp"
CPU_US, OF_MLSERVER = 75.0, 9.0  # at most, and at least so many times less
_SECONDS = 0.7  # of one round of one server
_FEWEST = 64  # requests
_MOST = 100_000


@dataclass(frozen=True)
class Case:
    """A request: rows for a model."""

    name: str
    model: str
    rows: int

    @property
    def message(self) -> bytes:
        """The serialized request, its tensor in raw form."""
        shape = (self.rows, *MODELS[self.model][1])
        request = ModelInferRequest(model_name=self.model)
        x = np.linspace(-1.0, 1.0, prod(shape), dtype=np.float32).reshape(shape)
        add_inputs(request, {"x": x}, raw=True)
        return request.SerializeToString()


CASES = (
    Case("mlp", "mlp", 1),
    Case("lstm 1x10x33", "lstm", 1),
    Case("mlp, 64 rows", "mlp", 64),
    Case("1 MiB tensor", "mean", 1),
)


@dataclass(frozen=True)
class Effort:
    """How long to measure one case."""

    rounds: int  # calm ones, of each server
    patience: float  # seconds to wait for them


QUICK, SHOWN = Effort(1, 0.0), Effort(3, 20.0)


@dataclass(frozen=True)
class Round:
    """What one server took under one load, once."""

    cpu_us: float  # a request
    per_second: float
    seconds: NDArray[np.float64]  # of each request


@dataclass(frozen=True)
class Figure:
    """One server under one load."""

    server: str
    case: str
    concurrent: int
    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    rounds: int
    calm: int  # of them; where some server had too few, all count


def answer(target: Target, case: Case) -> Any:
    """What a server answers to a case, as an array [rows, 1]."""
    with grpc.insecure_channel(target.address) as channel:
        grpc.channel_ready_future(channel).result(20)
        infer: Any = channel.unary_unary(METHOD)
        (y,) = outputs_of(ModelInferResponse.FromString(infer(case.message, timeout=20))).values()
    return y


def once(target: Target, case: Case, concurrent: int, seconds: float) -> Round:
    """Loads a server for about so many seconds."""
    clients, streams = CONCURRENT[concurrent]
    body = frame(case.message)

    def offered(requests: int) -> Answers:
        return answers(target.address, METHOD, body, requests=requests, clients=clients, streams=streams)

    probe = max(_FEWEST, 2 * concurrent)
    requests = min(max(round(probe / offered(probe).elapsed * seconds), probe), _MOST)
    before = target.process.cpu_seconds()
    seen = offered(requests)
    cpu = target.process.cpu_seconds() - before
    return Round(cpu / requests * 1e6, requests / seen.elapsed, seen.seconds)


def figure(server: str, case: str, concurrent: int, rounds: Rounds[Round]) -> Figure:
    """What the rounds that count say together."""
    cpu_us = median(each.cpu_us for each in rounds.counted)
    per_second = median(each.per_second for each in rounds.counted)
    seconds = np.concatenate([each.seconds for each in rounds.counted])
    p50, p99, p999 = np.percentile(seconds, [50, 99, 99.9]) * 1e3
    return Figure(server, case, concurrent, cpu_us, per_second, p50, p99, p999, len(rounds.all), len(rounds.calm))


def measure(names: list[str], concurrent: list[int], shown: Effort, promised: Effort) -> list[Figure]:
    """A figure for each server, case and number of calls at a time, with more effort where something is promised.

    Raises when the servers' answers differ.
    """
    figures: list[Figure] = []
    pace = Pace()
    with ExitStack() as stack:
        targets = []
        for name in names:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            print(f"starting {name} ...", file=sys.stderr, flush=True)
            targets.append(stack.enter_context(SERVERS[name](folder)))
        for case in CASES:
            expected = answer(targets[0], case)
            for target in targets[1:]:
                np.testing.assert_allclose(answer(target, case), expected, rtol=1e-4, atol=1e-5)
        for case in CASES:
            for calls in concurrent:
                effort = promised if case is CASES[0] and calls == PROMISED else shown
                if calls == PROMISED and case is not CASES[0]:
                    continue
                rounds = interleaved(
                    {target.name: partial(once, target, case, calls, _SECONDS) for target in targets},
                    pace,
                    enough=effort.rounds,
                    patience=effort.patience,
                )
                figures += [figure(name, case.name, calls, each) for name, each in rounds.items()]
                told = ", ".join(f"{each.server} {each.cpu_us:.0f} us" for each in figures[-len(targets) :])
                print(f"{case.name}, {calls} at a time: {told}", file=sys.stderr, flush=True)
    return figures


def broken(figures: list[Figure]) -> list[str]:
    """The promises that were not kept, in words."""
    cpu = {each.server: each.cpu_us for each in figures if (each.case, each.concurrent) == (CASES[0].name, PROMISED)}
    ours = cpu.get(OURS, 0.0)
    said = []
    if ours > CPU_US:
        said.append(f"{ours:.0f} us a request, promised <= {CPU_US:.0f}")
    if (peer := cpu.get(MLSERVER)) and peer < OF_MLSERVER * ours:
        said.append(f"{peer / ours:.1f} times less than MLServer, promised >= {OF_MLSERVER:.0f}")
    if (peer := cpu.get(TRITON)) and peer < ours:
        said.append(f"{ours:.0f} us a request, Triton {peer:.0f}")
    return said


def table(figures: list[Figure]) -> str:
    """A line for each figure; `of ours` is the CPU time beside that of our runtime."""
    ours = {(each.case, each.concurrent): each.cpu_us for each in figures if each.server == OURS}
    head = f"{'request':<14}{'at a time':>10}  {'server':<10}{'CPU us':>9}{'of ours':>9}{'requests/s':>12}"
    lines = [f"{head}{'p50 ms':>9}{'p99 ms':>9}{'p99.9 ms':>10}{'calm rounds':>14}"]
    for each in figures:
        ratio = each.cpu_us / ours[each.case, each.concurrent]
        lines.append(
            f"{each.case:<14}{each.concurrent:>10}  {each.server:<10}{each.cpu_us:>9.1f}{ratio:>8.2f}x"
            f"{each.per_second:>12,.0f}{each.p50_ms:>9.2f}{each.p99_ms:>9.2f}{each.p999_ms:>10.2f}"
            f"{each.calm:>8} of {each.rounds}"
        )
    return "\n".join(lines)


def main() -> int:
    """Prints the table; returns 1 when ours costs more than promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtime", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, and fewer calls at a time")
    parser.add_argument("--patience", type=float, default=240.0, help="seconds for calm rounds where we promise (240)")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    arguments = parser.parse_args()
    names = list(SERVERS)
    if arguments.quick:
        figures = measure(names, [1, PROMISED], QUICK, QUICK)
    else:
        figures = measure(names, list(CONCURRENT), SHOWN, Effort(9, arguments.patience))
    warmth = first.measure(1) if arguments.quick else first.measure()
    said = broken(figures)
    if arguments.json:
        told = {name: {state: asdict(each) for state, each in states.items()} for name, states in warmth.items()}
        print(json.dumps({"figures": [asdict(each) for each in figures], "first": told, "broken": said}))
    else:
        print(table(figures), first.table(warmth), sep="\n\n")
        for each in said:
            print(f"promise for {CASES[0].name}, {PROMISED} calls at a time, not kept: {each}")
    return bool(said)


if __name__ == "__main__":
    sys.exit(main())
