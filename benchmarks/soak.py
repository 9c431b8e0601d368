"""Whether the runtime grows: its memory, file handles and threads while it answers two million requests.

With --models Seldon's agent, as the tests have it, works the server instead: for a minute 200 models of two kinds, of
which 100 have room, are loaded, asked, evicted and loaded again, and some replaced by a new generation.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.h2load import load
from benchmarks.process import Server, server
from benchmarks.targets import METHOD, check, message, our_runtime
from protos.messages import ModelInferRequest
from protos.tensors import add_inputs, outputs_of
from tests.runtime.models import Times, put, tensor
from tests.runtime.seldon.agent import Agent

REQUESTS, QUICK_REQUESTS = 2_000_000, 100_000
SAMPLES = 20
SECONDS = 600.0  # at most, for the requests
MODELS, MODEL_SECONDS = 200, 60.0
QUICK_MODELS, QUICK_MODEL_SECONDS = 30, 10.0
CALLERS = 4
SETTLING = 0.3  # of a run; what the server holds by then it may keep
MIB = 1 << 20
GROWTH = 6 * MIB  # from there to the end: three bytes a request would be seen
MODELS_GROWTH = 16 * MIB
_BAR = 40


@dataclass(frozen=True)
class Sample:
    """The server at one time: `done` counts answers, all else is in the units of /proc."""

    seconds: float
    done: int
    memory: int  # bytes
    files: int
    threads: int


def sample(process: Server, started: float, done: int) -> Sample:
    """What the server holds now."""
    elapsed = time.perf_counter() - started
    return Sample(elapsed, done, process.memory_bytes(), process.open_files(), process.threads())


def requests(total: int) -> list[Sample]:
    """Samples over `total` requests to one model, by h2load, in equal parts and each over new connections."""
    samples = []
    with tempfile.TemporaryDirectory() as folder, our_runtime(Path(folder)) as target:
        request = message()
        check(target, request)
        started = time.perf_counter()
        for done in range(0, total, total // SAMPLES):
            samples.append(_settled(target.process, started, done))
            load(target.address, METHOD, request, requests=total // SAMPLES)
            if time.perf_counter() - started > SECONDS:
                raise RuntimeError(f"{SECONDS:.0f} s are over after {done:,} of {total:,} requests")
        samples.append(_settled(target.process, started, total))
    return samples


def _settled(process: Server, started: float, done: int) -> Sample:
    """A sample once the connections of the load are closed."""
    now = sample(process, started, done)
    for _ in range(20):
        time.sleep(0.05)
        before, now = now, sample(process, started, done)
        if now.files == before.files:
            break
    return now


class _Lstm(torch.nn.Module):
    """y [n, 1] of x [n, 4], too slow for the event loop: a model with a thread of its own."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.lstm = torch.nn.LSTM(4, 64, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = x.unsqueeze(1).expand(-1, 10, -1)
        y: torch.Tensor = x * self.factor + 0.0 * self.lstm(steps)[0].sum()
        return y


@contextmanager
def _pod(count: int) -> Iterator[tuple[Server, Agent, dict[str, Path]]]:
    """A server, the agent beside it with room for half of the models, and the models' folders."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        outputs = [tensor("y", "FP32", -1, 4)]
        sources = {}
        for number in range(count):
            module = _Lstm(number) if number % 4 == 0 else Times(number)
            sources[f"m{number}"] = put(root / "sources", f"m{number}", module, outputs=outputs)
        (root / "models").mkdir()
        command = [sys.executable, "-m", "runtime", str(root / "models"), "--port", "0", "--load", "none"]
        with server(command, root / "log") as process:
            address = process.wait_for(r"^serving .* on (127\.0\.0\.1:\d+)")[1]
            with Agent(root, address, memory=count // 2, overcommit=110, grace=0.2) as agent:
                agent.start()
                yield process, agent, sources


def models(count: int, seconds: float) -> list[Sample]:
    """Samples while `CALLERS` clients ask `count` models at random; raises when an answer is an error or is wrong."""
    samples = []
    asked = ModelInferRequest()
    add_inputs(asked, {"x": np.ones((1, 4), np.float32)}, raw=True)
    with _pod(count) as (process, agent, sources), ThreadPoolExecutor(CALLERS + 1) as pool:
        agent.load_all(sources)
        started = time.perf_counter()
        end = started + seconds
        done = [0] * CALLERS

        def client(number: int) -> None:
            rng = np.random.default_rng(number)
            while time.perf_counter() < end:
                model = int(rng.integers(count))
                y = outputs_of(agent.infer(f"m{model}", asked).response)["y"]
                if y.tolist() != [[model] * 4]:
                    raise RuntimeError(f"m{model} answered {y!r}")
                done[number] += 1

        def scheduler() -> None:
            rng = np.random.default_rng(CALLERS)
            while time.perf_counter() < end:
                model = f"m{rng.integers(count)}"
                agent.load(model, sources[model])

        working = [pool.submit(client, number) for number in range(CALLERS)] + [pool.submit(scheduler)]
        while time.perf_counter() < end and not any(each.done() for each in working):
            samples.append(sample(process, started, sum(done)))
            time.sleep(seconds / SAMPLES)
        for each in working:
            each.result()
        samples.append(sample(process, started, sum(done)))
        loads = sum(each.method == "RepositoryModelLoad" for each in agent.sent)
        print(f"{sum(done):,} calls, {loads:,} loads, no error", file=sys.stderr)
    return samples


def growth(samples: list[Sample], of: Callable[[Sample], int]) -> int:
    """The most that was held in the last part of the run, less the most before, from where the server had settled."""
    settled = samples[int(len(samples) * SETTLING) :]
    half = len(settled) // 2
    return max(map(of, settled[half:])) - max(map(of, settled[:half]))


def chart(samples: list[Sample]) -> str:
    """A line for each sample, and a bar for its memory."""
    most = max(each.memory for each in samples)
    lines = [f"{'seconds':>8}{'answers':>12}{'files':>7}{'threads':>9}{'MiB':>8}"]
    for each in samples:
        bar = "#" * round(_BAR * each.memory / most)
        lines.append(
            f"{each.seconds:>8.1f}{each.done:>12,}{each.files:>7}{each.threads:>9}{each.memory / MIB:>8.1f} {bar}"
        )
    return "\n".join(lines)


def main() -> int:
    """Prints the chart; returns 1 when the server grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--models", action="store_true", help="many models that come and go")
    parser.add_argument("--quick", action="store_true", help="a small part of it")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    arguments = parser.parse_args()
    if arguments.models:
        samples = models(QUICK_MODELS, QUICK_MODEL_SECONDS) if arguments.quick else models(MODELS, MODEL_SECONDS)
    else:
        samples = requests(QUICK_REQUESTS if arguments.quick else REQUESTS)
    bound = MODELS_GROWTH if arguments.models else GROWTH
    memory = growth(samples, lambda each: each.memory)
    files = growth(samples, lambda each: each.files)
    if arguments.json:
        print(json.dumps({"memory": memory, "files": files, "samples": [asdict(each) for each in samples]}))
    else:
        print(chart(samples))
        print(
            f"after it settled it grew by {memory / MIB:.1f} MiB (allowed {bound / MIB:.0f}) and {files} files; "
            "growth is the most of the second half less the most of the first, the first 30 % left out"
        )
    return int(memory > bound or files > (CALLERS if arguments.models else 0))


if __name__ == "__main__":
    sys.exit(main())
