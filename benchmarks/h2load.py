"""Load on a server by h2load, from nghttp2: a cheap generator, so that the server is what is measured."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protos.framing import frame

GRPC = ("content-type: application/grpc", "te: trailers")
JSON = ("content-type: application/json",)
SECONDS = 600  # that one load may take


@dataclass(frozen=True)
class Load:
    """What h2load saw."""

    requests: int
    seconds: float
    mean_seconds: float  # of one request, as it waits among the others


@dataclass(frozen=True)
class Answers:
    """Every answer that h2load got: HTTP status and seconds, in equal order; what never came has no row."""

    statuses: NDArray[np.int64]
    seconds: NDArray[np.float64]
    elapsed: float  # seconds from the first request to the last answer

    def of(self, status: int) -> NDArray[np.float64]:
        """The seconds of the answers with one status."""
        chosen: NDArray[np.float64] = self.seconds[self.statuses == status]
        return chosen


def load(address: str, method: str, message: bytes, *, requests: int, clients: int = 4, streams: int = 8) -> Load:
    """Sends a gRPC message `requests` times over `clients` connections of `streams` calls each.

    h2load reads HTTP statuses only: check that the method answers before. Raises RuntimeError when h2load is missing,
    or a request failed.
    """
    options = [f"-n{requests}", f"-c{clients}", f"-m{streams}"]
    output = _run(address, method, frame(message), GRPC, options)
    done = re.search(r"(\d+) succeeded", output)
    if done is None or int(done[1]) != requests:
        raise RuntimeError(f"not every request succeeded:\n{output}")
    finished = re.search(r"finished in ([\d.]+)(us|ms|s)", output)
    latency = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", output)
    if finished is None or latency is None:
        raise RuntimeError(f"h2load's output is not understood:\n{output}")
    return Load(requests, _seconds(finished), _seconds(latency))


def answers(
    address: str,
    path: str,
    body: bytes,
    *,
    requests: int,
    clients: int = 4,
    streams: int = 8,
    rate: float | None = None,
    headers: tuple[str, ...] = GRPC,
) -> Answers:
    """Sends a body `requests` times and notes each answer, whatever its status; with `rate` that many a second.

    A rate is kept whatever the server does, until `streams` calls wait on each of the connections. Raises RuntimeError
    when h2load is missing, or an answer did not come.
    """
    options = [f"-n{requests}", f"-c{clients}", f"-m{streams}"]
    if rate is not None:
        options.append(f"--rps={max(1, round(rate / clients))}")
    with tempfile.NamedTemporaryFile("r") as log:
        output = _run(address, path, body, headers, [*options, f"--log-file={log.name}"])
        rows = np.loadtxt(log.name, dtype=np.int64, ndmin=2)
    if len(rows) != requests:
        raise RuntimeError(f"{len(rows)} of {requests} requests were answered:\n{output}")
    starts, statuses, took = rows.T
    return Answers(statuses, took * 1e-6, float((starts + took).max() - starts.min()) * 1e-6)


def _run(address: str, path: str, body: bytes, headers: tuple[str, ...], options: list[str]) -> str:
    if shutil.which("h2load") is None:
        raise RuntimeError("h2load is missing: apt-get install nghttp2-client")
    with _file(body) as file:
        command = ["h2load", *options, "-d", str(file), *(word for each in headers for word in ("-H", each))]
        command.append(f"http://{address}{path}")
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout


@contextmanager
def _file(content: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


def _seconds(match: re.Match[str]) -> float:
    return float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[match[2]]
