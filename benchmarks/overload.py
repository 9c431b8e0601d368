"""What becomes of the runtime when it is offered three times what it can serve.

The model multiplies matrices for a known time a call, and calls share no batch. Server and load generator have a core
each: refusing calls takes time from the model. The load is open: h2load sends at its rate, whatever comes back, over
REST, whose statuses it can read. A client of gRPC beside it times the refusals that gRPC callers get.

What the server can serve is measured before and after, and their mean is the peak: the machine is not ours alone.
Rounds are short, and repeated until each model has enough in which nothing slowed the machine, or patience ends: then
all rounds count. Of them the median of each figure is told; the least and the greatest goodput stand beside it, and
what the server's CPU time says: that of an answer alone, of that of an answer and its refusals.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import grpc
import httpx
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.h2load import JSON, answers
from benchmarks.pace import Pace, Rounds, interleaved
from benchmarks.prober import Prober
from benchmarks.process import Server, server
from tests.runtime.models import put, tensor

OVERLOAD = 3.0
CLIENTS, STREAMS = 8, 1000
SIZE = 128
SECONDS = 2.0  # of each of the three parts of a round
PRODUCTS = (20, 100)  # matrix products a call: about 1 ms and 5 ms
QUEUE = 32
SECONDS_TO_SETTLE = 5.0  # for connections to be closed after the last answer
GOODPUT, REFUSED_SECONDS = 0.9, 5e-3  # promised: of the peak, and for 99 of 100 refusals
SLACK = 1.15  # of the time that a full queue takes: the machine is not ours alone
_OK, _REFUSED = 200, 429


class Work(torch.nn.Module):
    """y [n, 1] = x [n, 1] after a number of matrix products, all of them of the identity."""

    def __init__(self, products: int) -> None:
        super().__init__()
        self.products = products
        self.weight = torch.nn.Parameter(torch.eye(SIZE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        work = self.weight + 0.0 * x.sum()
        for _ in range(self.products):
            work = work @ self.weight
        return x * work[0, 0]


@dataclass(frozen=True)
class Outcome:
    """One model under overload. Rates are calls a second, times are seconds."""

    model_seconds: float
    before: float  # goodput when nothing is refused
    offered: float
    goodput: float
    before_cpu: float  # seconds of an answered call
    goodput_cpu: float  # the same under overload, with the calls refused meanwhile
    answered_p99: float
    bound: float  # on it: what the calls in a full queue take
    refused_p50: float
    refused_p99: float
    grpc_refused_p50: float
    grpc_refused_p99: float
    after: float  # goodput once it is over
    memory_before: int
    memory_after: int
    left: int  # calls and file handles that it left behind

    @property
    def peak(self) -> float:
        """What it can serve."""
        return (self.before + self.after) / 2

    @property
    def share(self) -> float:
        """Of the peak, what is answered under overload."""
        return self.goodput / self.peak

    @property
    def kept(self) -> bool:
        """Whether everything that is promised held."""
        return (
            self.share >= GOODPUT
            and self.answered_p99 <= self.bound
            and max(self.refused_p99, self.grpc_refused_p99) <= REFUSED_SECONDS
            and self.after >= GOODPUT * self.before
            and self.left <= 0
        )


@contextmanager
def runtime(folder: Path, products: int) -> Iterator[tuple[Server, str]]:
    """`croupier runtime` with the model "work" on the first core that we have; we keep to the others."""
    ours = os.sched_getaffinity(0)
    first = {min(ours)}
    one = tensor("x", "FP32", -1, 1)
    extra = {"max_queue": QUEUE, "max_batch_size": 1}
    put(folder / "models", "work", Work(products), inputs=[one], parameters={"extra": extra})
    command = [sys.executable, "-m", "runtime", str(folder / "models"), "--port", "0"]
    with server(command, folder / "log") as process:
        address = process.wait_for(r"^serving .* on (127\.0\.0\.1:\d+)")[1]
        process.pin(first)
        os.sched_setaffinity(0, ours - first or first)
        try:
            yield process, address
        finally:
            os.sched_setaffinity(0, ours)


def body() -> bytes:
    """The request in JSON."""
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}).encode()


def goodput(process: Server, address: str, seconds: float) -> tuple[float, float]:
    """Calls a second that are answered, and the server's CPU seconds of one, when as many as the queue holds wait."""
    requests = 50
    while True:
        used = process.cpu_seconds()
        seen = answers(address, _PATH, body(), requests=requests, clients=2, streams=QUEUE // 4, headers=JSON)
        used = process.cpu_seconds() - used
        if len(seen.of(_OK)) != requests:
            raise RuntimeError(f"{requests - len(seen.of(_OK))} of {requests} calls failed within what the queue holds")
        if seen.elapsed >= seconds:
            return requests / seen.elapsed, used / requests
        requests = max(2 * requests, round(requests / seen.elapsed * seconds * 1.1))


_PATH = "/v2/models/work/infer"


def overload(products: int, seconds: float) -> Outcome:
    """Finds the peak, offers three times as much for some seconds, and looks what is left of it."""
    with tempfile.TemporaryDirectory() as folder, runtime(Path(folder), products) as (process, address):
        before, before_cpu = goodput(process, address, seconds)
        model_seconds = _metric(address, "runtime_run_seconds_sum") / _metric(address, "runtime_run_seconds_count")
        memory, files = process.memory_bytes(), process.open_files()
        offered = OVERLOAD * before
        used = process.cpu_seconds()
        with Prober(address, "work", {"x": np.ones((1, 1), np.float32)}) as prober:
            seen = answers(
                address,
                _PATH,
                body(),
                requests=round(offered * seconds),
                clients=CLIENTS,
                streams=STREAMS,
                rate=offered,
                headers=JSON,
            )
        used = process.cpu_seconds() - used
        good, refused = seen.of(_OK), seen.of(_REFUSED)
        if len(good) + len(refused) != len(seen.statuses):
            raise RuntimeError(f"statuses other than {_OK} and {_REFUSED}: {set(seen.statuses.tolist())}")
        over_grpc = prober.seconds.get(grpc.StatusCode.RESOURCE_EXHAUSTED, [])
        if odd := prober.seconds.keys() - {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}:
            raise RuntimeError(f"gRPC statuses {odd}")
        answered = len(good) + len(prober.seconds.get(grpc.StatusCode.OK, []))
        after, _ = goodput(process, address, seconds)
        left, patience = 1, time.monotonic() + SECONDS_TO_SETTLE
        while left > 0 and time.monotonic() < patience:
            time.sleep(0.05)
            left = process.open_files() - files + round(_metric(address, "runtime_requests_in_flight"))
        return Outcome(
            model_seconds=model_seconds,
            before=before,
            offered=len(seen.statuses) / seen.elapsed,
            goodput=answered / seen.elapsed,
            before_cpu=before_cpu,
            goodput_cpu=used / answered,
            answered_p99=_percentile(good, 99),
            bound=SLACK * (QUEUE + 2) / (GOODPUT * (before + after) / 2),
            refused_p50=_percentile(refused, 50),
            refused_p99=_percentile(refused, 99),
            grpc_refused_p50=_percentile(np.array(over_grpc), 50),
            grpc_refused_p99=_percentile(np.array(over_grpc), 99),
            after=after,
            memory_before=memory,
            memory_after=process.memory_bytes(),
            left=left,
        )


def typical(outcomes: list[Outcome]) -> Outcome:
    """The median of each figure."""
    return Outcome(
        **{each.name: statistics.median(getattr(one, each.name) for one in outcomes) for each in fields(Outcome)}
    )


def _metric(address: str, name: str) -> float:
    lines = httpx.get(f"http://{address}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((name + "{", name + " ")))


def _percentile(values: NDArray[np.float64], percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def main() -> int:
    """Prints the table; returns 1 when a promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of one model")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds to wait for calm rounds (300)")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    arguments = parser.parse_args()
    models, enough, patience = (PRODUCTS[-1:], 1, 0.0) if arguments.quick else (PRODUCTS, 5, arguments.patience)

    def heard(rounds: Mapping[int, Rounds[Outcome]]) -> None:
        done, calm = min(len(each.all) for each in rounds.values()), min(len(each.calm) for each in rounds.values())
        print(f"{done} rounds; calm: {calm} of {enough}", file=sys.stderr, flush=True)

    measures = {products: partial(overload, products, SECONDS) for products in models}
    by_model = interleaved(measures, Pace(), enough=enough, patience=patience, heard=heard)
    if arguments.json:
        print(json.dumps([[asdict(each) for each in rounds.counted] for rounds in by_model.values()]))
    else:
        for rounds in by_model.values():
            print(report(rounds.counted))
            print(f"  {'rounds':<15}{len(rounds.all)}, in {len(rounds.calm)} of which nothing slowed the machine")
        print(f"h2load -c{CLIENTS} -m{STREAMS} at a fixed rate; server and load generator on a core each")
        print(f"load average {os.getloadavg()[0]:.1f} at the end; beyond 2 or so others ran too, and latencies show it")
    return int(not all(typical(rounds.counted).kept for rounds in by_model.values()))


def report(outcomes: list[Outcome]) -> str:
    """The outcome of all rounds beside what is promised."""
    outcome = typical(outcomes)
    shares = [each.share for each in outcomes]
    alone, together = outcome.before_cpu * 1e3, outcome.goodput_cpu * 1e3
    grew = (outcome.memory_after - outcome.memory_before) / (1 << 20)
    promised = f"(promised <= {REFUSED_SECONDS * 1e3:.0f})"
    lines = {
        "goodput": f"{outcome.goodput:,.0f}/s, {statistics.median(shares):.0%} of the peak, {min(shares):.0%} to "
        f"{max(shares):.0%} (promised >= {GOODPUT:.0%})",
        "CPU time": f"an answer {alone:.2f} ms, {together:.2f} with its refusals: {alone / together:.0%}",
        "answered": f"p99 {outcome.answered_p99 * 1e3:.1f} ms (a full queue takes {outcome.bound * 1e3:.1f})",
        "refused, REST": f"p50 {outcome.refused_p50 * 1e3:.2f} ms, p99 {outcome.refused_p99 * 1e3:.2f} {promised}",
        "refused, gRPC": f"p50 {outcome.grpc_refused_p50 * 1e3:.2f} ms, p99 {outcome.grpc_refused_p99 * 1e3:.2f} "
        f"{promised}",
        "afterwards": f"{outcome.after:,.0f}/s, {outcome.after / outcome.before:.0%} of what it was, {grew:+.1f} MiB, "
        f"{outcome.left} calls or files left",
    }
    head = f"a call takes {outcome.model_seconds * 1e3:.2f} ms; {QUEUE} may wait; peak {outcome.peak:,.0f}/s"
    return "\n".join(
        [f"{head}, offered {outcome.offered:,.0f}/s", *(f"  {key:<15}{said}" for key, said in lines.items())]
    )


if __name__ == "__main__":
    sys.exit(main())
