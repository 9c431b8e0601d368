"""What serving a model costs, and how long a caller waits: ours beside MLServer and Triton, in one run.

Every server holds the same TorchScript archives and answers the same V2 requests over gRPC. CPU time is that of the
server's processes; latency is what h2load saw of every request. The rounds are interleaved, so that a noisy machine is
noisy for all; of each figure's rounds the one with the least CPU time is shown. Below stands what a model's first
callers wait for, before its warm-up and after.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks import first
from benchmarks.h2load import answers
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


def answer(target: Target, case: Case) -> Any:
    """What a server answers to a case, as an array [rows, 1]."""
    with grpc.insecure_channel(target.address) as channel:
        grpc.channel_ready_future(channel).result(20)
        infer: Any = channel.unary_unary(METHOD)
        (y,) = outputs_of(ModelInferResponse.FromString(infer(case.message, timeout=20))).values()
    return y


def figure(target: Target, case: Case, concurrent: int, seconds: float) -> Figure:
    """Loads a server for about so many seconds."""
    clients, streams = CONCURRENT[concurrent]
    body = frame(case.message)

    def offered(requests: int) -> Any:
        return answers(target.address, METHOD, body, requests=requests, clients=clients, streams=streams)

    probe = max(_FEWEST, 2 * concurrent)
    requests = min(max(round(probe / offered(probe).elapsed * seconds), probe), _MOST)
    before = target.process.cpu_seconds()
    seen = offered(requests)
    cpu = target.process.cpu_seconds() - before
    p50, p99, p999 = np.percentile(seen.seconds, [50, 99, 99.9]) * 1e3
    per_second = requests / seen.elapsed
    return Figure(target.name, case.name, concurrent, cpu / requests * 1e6, per_second, p50, p99, p999)


def measure(names: list[str], concurrent: list[int], rounds: int, seconds: float) -> list[Figure]:
    """The best figure of each server, case and number of calls at a time. Raises when their answers differ."""
    best: dict[tuple[str, int, str], Figure] = {}
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
        for number in range(rounds):
            for case in CASES:
                print(f"round {number + 1}/{rounds} {case.name}", file=sys.stderr, flush=True)
                for calls in concurrent:
                    if calls == PROMISED and case is not CASES[0]:
                        continue
                    for target in targets:
                        seen = figure(target, case, calls, seconds)
                        key = (case.name, calls, target.name)
                        if key not in best or seen.cpu_us < best[key].cpu_us:
                            best[key] = seen
    return list(best.values())


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
    lines = [f"{head}{'p50 ms':>9}{'p99 ms':>9}{'p99.9 ms':>10}"]
    for each in figures:
        ratio = each.cpu_us / ours[each.case, each.concurrent]
        lines.append(
            f"{each.case:<14}{each.concurrent:>10}  {each.server:<10}{each.cpu_us:>9.1f}{ratio:>8.2f}x"
            f"{each.per_second:>12,.0f}{each.p50_ms:>9.2f}{each.p99_ms:>9.2f}{each.p999_ms:>10.2f}"
        )
    return "\n".join(lines)


def main() -> int:
    """Prints the table; returns 1 when ours costs more than promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtime", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, and fewer calls at a time")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    arguments = parser.parse_args()
    names = list(SERVERS)
    figures = measure(names, [1, PROMISED], 1, 0.5) if arguments.quick else measure(names, list(CONCURRENT), 3, 2.0)
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
